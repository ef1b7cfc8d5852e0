"""OVSeg (Liang et al., CVPR 2023): mask proposals, named by a mask-adapted vision-language model."""
