"""A split of any labelled folder by the names of its files: stable when files are added, and the same everywhere."""

import hashlib

HELD_OUT_TENTHS = 3

PARTS = {"held-out": True, "rest": False}
"""For each part of the split, the value of `held_out` for its images."""


def held_out(key: str) -> bool:
    """Whether the image with this key is held out from training for measurements; about 30 percent of images are."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[0] % 10 < HELD_OUT_TENTHS
