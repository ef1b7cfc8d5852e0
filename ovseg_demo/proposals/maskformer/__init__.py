"""MaskFormer for open vocabularies, as OVSeg trains it: class-agnostic masks with embeddings in CLIP's text space."""
