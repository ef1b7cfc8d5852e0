"""Seconds and memory of embedding regions by CLIP, compared with the implementation of OVSeg's release.

The release puts all masks of a photo, at most 100, through the stock image tower in one float32 batch. This is done
here with open_clip's own layers, and with the weights and crops of this project's implementation. The weights are
random: seconds and memory do not depend on them, but the difference that bfloat16 makes to embeddings may.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch.nn import functional as F

from eval import environment
from eval.benchmark import random_weights
from eval.benchmark.process import alone, peak
from eval.markdown import table
from ovseg_demo import image
from ovseg_demo.models.clip.optimised import Precision, native_precision
from ovseg_demo.models.region_crops import masked_crops_and_masks
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD
from ovseg_demo.weights import reading

ARCHITECTURES = ("ViT-B-16-quickgelu", "ViT-L-14-quickgelu")
"""open_clip's names of the CLIPs of OVSeg's published models."""

RELEASED = "as released"
"""The implementation that embeds all regions in one float32 batch of open_clip's own layers."""

MOST = 100
"""Regions in the batch of the release, the number of its queries."""

Embed = Callable[[np.ndarray, MaskProposals], torch.Tensor]


@dataclass(frozen=True)
class RegionMeasurement:
    """Time, memory and output of one implementation.

    Attributes:
        seconds: seconds of each repeat, from the photo and its masks to the embeddings.
        megabytes: peak resident memory of the process since its start, so reading the weights is included.
        embeddings: unit vectors of the N regions, float32 (N, D).
    """

    seconds: list[float]
    megabytes: float
    embeddings: np.ndarray


def report(architecture: str, count: int, repeats: int, prompts: bool, photo: Path) -> str:
    """The table of `python -m eval.benchmark regions`.

    Args:
        architecture: open_clip's name of the CLIP.
        count: number of regions.
        repeats: how often the regions are embedded.
        prompts: whether the CLIP has mask prompts.
        photo: path of a photo.
    """
    names = [RELEASED, "float32"]
    if native_precision(torch.device("cpu")) == "bfloat16":
        names.append("bfloat16")
    runs = {}
    with tempfile.TemporaryDirectory(prefix="random-weights-") as folder:
        weights = Path(folder) / "clip.safetensors"
        alone(write_weights, architecture, prompts, weights)
        for name in names:
            print(f"{name} …", file=sys.stderr, flush=True)
            runs[name] = alone(run_implementation, name, architecture, weights, photo, count, repeats)
    place = environment.environment("cpu", 1)["processor"]
    model = f"{architecture}{' with mask prompts' if prompts else ''}, random weights, {count} regions"
    return f"{model}, medians of {repeats}, on {place}, {torch.get_num_threads()} threads.\n\n{comparison_table(runs)}"


def write_weights(architecture: str, prompts: bool, path: Path) -> None:
    """Write a file of random weights.

    Args:
        architecture: open_clip's name of the CLIP.
        prompts: whether the CLIP has mask prompts.
        path: the file.
    """
    random_weights.write(partial(random_weights.clip, architecture, prompts), path)


def run_implementation(
    name: str, architecture: str, weights: Path, photo: Path, count: int, repeats: int
) -> RegionMeasurement:
    """Measure one implementation in this process, after a warm-up.

    Args:
        name: RELEASED, or a precision of this project's implementation.
        architecture: open_clip's name of the CLIP.
        weights: the file of `write_weights`.
        photo: path of a photo.
        count: number of regions.
        repeats: how often the regions are embedded.
    """
    embed = (
        _released(architecture, weights) if name == RELEASED else _ours(architecture, weights, cast(Precision, name))
    )
    pixels = image.load(photo).pixels
    embed(pixels, ellipses(2, pixels.shape[:2]))
    proposals, seconds = ellipses(count, pixels.shape[:2]), []
    for _ in range(repeats):
        start = time.perf_counter()
        embeddings = embed(pixels, proposals)
        seconds.append(time.perf_counter() - start)
    return RegionMeasurement(seconds, peak(), embeddings.numpy())


def ellipses(count: int, size: tuple[int, int]) -> MaskProposals:
    """`count` ellipses of all sizes within an image of size (H, W), always the same."""
    rng = np.random.default_rng(0)
    rows, columns = np.ogrid[: size[0], : size[1]]
    centres, radii = rng.uniform(0, size, (count, 2)), rng.uniform(4, np.array(size) / 2, (count, 2))
    masks = [
        ((rows - y) / b) ** 2 + ((columns - x) / a) ** 2 <= 1 for (y, x), (b, a) in zip(centres, radii, strict=True)
    ]
    return MaskProposals.from_masks(np.stack(masks), np.ones(count))


def comparison_table(runs: dict[str, RegionMeasurement]) -> str:
    """A Markdown table with a row for each implementation: seconds, memory, likeness of its embeddings to RELEASED's.

    "Same neighbour" is the share of regions whose most similar other region is the same, the embeddings being centred.
    """
    base = runs[RELEASED]
    rows = []
    for name, run in runs.items():
        seconds = statistics.median(run.seconds)
        faster = statistics.median(base.seconds) / seconds
        cosine = (run.embeddings * base.embeddings).sum(1).min()
        same = (_neighbours(run.embeddings) == _neighbours(base.embeddings)).mean()
        rows.append([name, f"{seconds:.1f}", f"{faster:.1f}", f"{run.megabytes:.0f}", f"{cosine:.6f}", f"{same:.0%}"])
    return table(["", "s", "times faster", "peak memory, MB", "least cosine", "same neighbour"], rows)


def _neighbours(embeddings: np.ndarray) -> np.ndarray:
    """For each row of (N, D), N > 1, the most similar other row once their mean is taken off, (N,)."""
    centred = F.normalize(torch.from_numpy(embeddings - embeddings.mean(0)), dim=1)
    return (centred @ centred.T).fill_diagonal_(-torch.inf).argmax(1).numpy()


def _ours(architecture: str, weights: Path, precision: Precision) -> Embed:
    from ovseg_demo.models.clip.region_classifier import ClipRegionClassifier

    vlm = ClipRegionClassifier(architecture, weights.name, state=reading.read_weights(weights), precision=precision)
    return lambda pixels, proposals: vlm.embed_regions(pixels, proposals, lambda _: None)


def _released(architecture: str, weights: Path) -> Embed:
    """Without prompts open_clip's own model; with them, its layers and the rule of `MaskPromptedTower`."""
    import open_clip

    from ovseg_demo.models.clip.weights import MASK_PROMPTS, build_clip, clip_state_dict

    state = clip_state_dict(reading.read_weights(weights))
    prompted = MASK_PROMPTS in state
    if prompted:
        clip: Any = build_clip(architecture, state, weights.name)
    else:
        clip = open_clip.create_model(architecture, pretrained=None, pretrained_text=False).eval()
        clip.load_state_dict(state)
    size = clip.visual.image_size[0]

    @torch.no_grad()
    def embed(pixels: np.ndarray, proposals: MaskProposals) -> torch.Tensor:
        batches = masked_crops_and_masks(pixels, proposals, size=size, mean=CLIP_MEAN, std=CLIP_STD, batch_size=MOST)
        embeddings = [clip.visual(crops, masks) if prompted else clip.encode_image(crops) for crops, masks in batches]
        return F.normalize(torch.cat(embeddings), dim=-1)

    return embed
