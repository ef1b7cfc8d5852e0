"""Made-up pairs, and stand-ins for what finds masks and compares them with words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image
from torch import Tensor

from ovseg_demo.proposals.base import MaskProposals
from train.common.run_folder import RunFolder
from train.ovseg.pairs import report, shards
from train.ovseg.pairs.shards import Pair, PairShards

COLOURS = {"red": (220, 20, 20), "grass": (20, 200, 30), "water": (20, 40, 220), "snow": (240, 240, 240)}


def pair(word: str, photo: str = "set/a", size: tuple[int, int] = (40, 60), seed: int = 0) -> Pair:
    """A region of the colour of its word, noise outside of its mask."""
    random = np.random.default_rng(seed)
    crop = random.integers(0, 255, (*size, 3), dtype=np.uint8)
    mask = np.zeros(size, bool)
    mask[: size[0] // 2] = mask[:, : size[1] // 3] = True
    crop[mask] = COLOURS.get(word, (128, 128, 128))
    return Pair(word, f"A photo of {word} .", 1.5, photo, (3, 4, 3 + size[1], 4 + size[0]), crop, mask)


def folder_of(path: Path, pairs: Sequence[Pair], each: int = 2) -> Path:
    """A finished folder of shards of four photos, with `each` pairs a photo."""
    PartialState(cpu=True)
    folder = RunFolder(path, {})
    photos = {number: pairs[start : start + each] for number, start in enumerate(range(0, len(pairs), each))}
    for number in range(-(-len(photos) // 4)):
        shards.write_shards(folder, number, {p: photos[p] for p in range(4 * number, min(4 * number + 4, len(photos)))})
    report.write_report(folder, report.summary(PairShards(path), len(photos)), "")
    return path


def quarters(path: Path) -> None:
    """A photo of 64 x 64 pixels whose quarters are red, green, blue and white."""
    pixels = np.empty((64, 64, 3), np.uint8)
    for colour, (row, column) in zip(COLOURS.values(), np.ndindex(2, 2), strict=True):
        pixels[row * 32 : row * 32 + 32, column * 32 : column * 32 + 32] = colour
    Image.fromarray(pixels).save(path, quality=95)


class Quarters:
    """Proposes the quarters of a photo, and a mask too small to be one."""

    name = "quarters"

    def propose(self, image: np.ndarray, report) -> MaskProposals:
        report(1.0)
        masks = np.zeros((5, *image.shape[:2]), bool)
        height, width = image.shape[0] // 2, image.shape[1] // 2
        masks[0, 0, 0] = True
        for mask, (row, column) in zip(masks[1:], np.ndindex(2, 2), strict=True):
            mask[row * height : (row + 1) * height, column * width : (column + 1) * width] = True
        return MaskProposals.from_masks(masks, np.ones(5))


class ByColour:
    """Knows the colours of words; likes every region less by the distance from them."""

    name = "by colour"

    def __init__(self) -> None:
        self.read: list[str] = []
        self.batches: list[int] = []

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        self.read += words
        self.batches.append(len(words))
        return torch.tensor([COLOURS.get(word, (0, 0, 0)) for word in words]).float()

    def embed_regions(self, image: np.ndarray, proposals: MaskProposals, report) -> Tensor:
        return torch.tensor(np.array([image[mask].mean(0) for mask in proposals.masks()])).float()

    def logits(self, regions: Tensor, texts: Tensor) -> Tensor:
        return -torch.cdist(regions, texts)
