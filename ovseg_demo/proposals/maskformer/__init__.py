"""MaskFormer for open vocabularies, as OVSeg trains it: class-agnostic masks with embeddings in CLIP's text space."""

from ovseg_demo.proposals.maskformer.decoder import Predictions
from ovseg_demo.proposals.maskformer.model import MaskFormer, build, fuse
from ovseg_demo.proposals.maskformer.reader import Reader, Reading
from ovseg_demo.proposals.maskformer.released import Released, load, load_backbone, split

__all__ = [
    "MaskFormer",
    "Predictions",
    "Reader",
    "Reading",
    "Released",
    "build",
    "fuse",
    "load",
    "load_backbone",
    "split",
]
