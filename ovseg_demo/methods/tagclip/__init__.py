"""TagCLIP (Li et al.), and ZegCLIP (Zhou et al., CVPR 2023), which is TagCLIP without the trusty token."""
