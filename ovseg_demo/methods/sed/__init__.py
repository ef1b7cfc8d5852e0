"""SED (Xie et al., CVPR 2024): a hierarchical CLIP's cost maps, decoded in three stages."""
