"""Training of OVSeg: MaskFormer, mask-adapted CLIP, and the mask-noun pairs it learns from."""
