"""Mask-adapted CLIP: full fine-tuning, mask prompts, or both (OVSeg, Liang et al. 2023, sections 3.2 and 3.3)."""
