"""Mask-word pairs: what CLIP learns masked regions from (OVSeg, Liang et al. 2023, section 3.2)."""

from importlib.util import find_spec

if find_spec("webdataset") is None or find_spec("spacy") is None:
    raise ImportError("train.pairs and train.clip need more libraries: pip install -r requirements-train.txt")
