"""Mask-word pairs: what CLIP learns masked regions from (OVSeg, Liang et al. 2023, section 3.2)."""
