"""Small sets of the kinds that the mini model learns from, and stand-ins for its towers."""

import json
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval.datasets.split import held_out
from tests.helpers.paths import GALLERY

VOC = [
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor", "background"),
]

KEYS = [key for key in (f"photo{number}" for number in range(40)) if not held_out(key)]
HELD_OUT = [key for key in (f"photo{number}" for number in range(40)) if held_out(key)]


def shrunk(name: str, size: tuple[int, int] = (96, 72)) -> Image.Image:
    """A gallery photo at (width, height)."""
    return Image.open(GALLERY / f"{name}.jpg").convert("RGB").resize(size)


def write_labelled_set(folder: Path, names: Sequence[str], masks: dict[str, np.ndarray], photo: str = "pizza") -> None:
    """A folder with masks, uint8 (H, W) by key."""
    for part in ("images", "masks"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    (folder / "classes.json").write_text(json.dumps(names))
    for key, mask in masks.items():
        shrunk(photo, mask.shape[::-1]).save(folder / f"images/{key}.jpg")
        Image.fromarray(mask).save(folder / f"masks/{key}.png")


def write_described_set(folder: Path, kind: str, texts: dict[str, list[str]], photo: str = "pizza") -> None:
    """A folder with captions or tags."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    (folder / f"{kind}.json").write_text(json.dumps(texts))
    for key in texts:
        shrunk(photo, (64, 64)).save(folder / f"images/{key}.jpg")


def two_halves(left: int, right: int, size: tuple[int, int] = (72, 96)) -> np.ndarray:
    """A mask of two values, uint8 (H, W)."""
    mask = np.full(size, left, np.uint8)
    mask[:, size[1] // 2 :] = right
    return mask


class Colours:
    """In place of the image tower: a photo's features are its mean colours."""

    device = torch.device("cpu")

    def __init__(self) -> None:
        self.seen = 0

    def pooled(self, pixels: Tensor) -> Tensor:
        self.seen += len(pixels)
        return torch.nn.functional.pad(pixels.mean((2, 3)), (0, 1277))

    def class_logits(self, features: Tensor) -> Tensor:
        return features[..., :1000]

    def pyramid(self, pixels: Tensor) -> list[Tensor]:
        pooled = [torch.nn.functional.avg_pool2d(pixels, stride) for stride in (4, 8, 16, 32)]
        return [torch.nn.functional.pad(each, (0, 0, 0, 0, 0, c - 3)) for each, c in zip(pooled, CHANNELS, strict=True)]


CHANNELS = (24, 48, 120, 1280)


def spelling(texts: Sequence[str]) -> Tensor:
    """In place of the text tower: texts are alike only when they are spelt alike but for their spaces."""
    vectors = torch.empty(len(texts), 384)
    for vector, text in zip(vectors, texts, strict=True):
        seed = zlib.crc32(text.replace(" ", "").encode())
        torch.randn(384, generator=torch.Generator().manual_seed(seed), out=vector)
    return torch.nn.functional.normalize(vectors, dim=-1)
