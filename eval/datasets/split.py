"""A split of any labelled folder by the names of its files: stable when files are added, and the same everywhere."""

import hashlib

HELD_OUT_TENTHS = 3

PARTS = {"held-out": True, "rest": False}
"""What `held_out` says of the images of each part."""


def held_out(key: str) -> bool:
    """Whether the image of this key is set aside for measuring; about 30 percent are, and training leaves them out."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[0] % 10 < HELD_OUT_TENTHS
