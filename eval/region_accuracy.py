"""How often a vision-language model names a ground-truth region correctly.

    python -m eval.region_accuracy --root PATH [--vlm mini] [--part held-out] [--first 80] [--only giraffe,umbrella]

PATH holds images/KEY.jpg, masks/KEY.png (class index, 255 = ignore) and classes.json (index -> name). Each class of
each image is one region. Prints a Markdown table: top-1 and top-5 among all names, and, as people use the demo,
top-1 in vocabularies of five names with the right name among them. With --only, regions of other classes are not
counted, but the names of these classes stay candidates.
"""

import argparse
import json
import random
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from eval import markdown
from eval.datasets.split import PARTS, held_out
from ovseg_demo.errors import UserError
from ovseg_demo.models import factory
from ovseg_demo.models.base import VisionLanguageModel
from ovseg_demo.proposals.base import MaskProposals

IGNORE = 255
NOT_NAMES = ("background", "null")
"""Names of "everything else" in some sets: no region is asked for them."""

SMALLEST_REGION = 0.001
"""Regions below this share of the image are skipped."""

VOCABULARY_SIZE = 5
VOCABULARIES = 20
SEED = 0


@dataclass(frozen=True)
class Regions:
    """Every measured region of a set.

    Attributes:
        logits: logits of each region for each name, (N, K).
        labels: the right column of each region, int64 (N,).
        photos: the number of each region's image, int64 (N,).
    """

    logits: Tensor
    labels: Tensor
    photos: Tensor


def class_names(root: Path) -> list[str]:
    """The class names of a labelled set.

    Args:
        root: folder of the set.

    Raises:
        SystemExit: with one line, when `root` is no labelled set.
    """
    for part in ("images", "masks", "classes.json"):
        if not (root / part).exists():
            raise SystemExit(f"{root} is not a labelled set: {part} is missing.")
    names = json.loads((root / "classes.json").read_text(encoding="utf-8"))
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise SystemExit(f"{root / 'classes.json'} is not a list of names.")
    return names


def labelled_images(root: Path, part: str | None, limit: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Images, uint8 (H, W, 3), RGB, with their label maps, uint8 (H, W), in the order of their keys.

    Args:
        root: folder of the set.
        part: a key of PARTS, or None for all images.
        limit: only the first so many images; None for all.

    Raises:
        SystemExit: with one line, when an image is missing, or its label map differs in size.
    """
    paths = sorted((root / "masks").glob("*.png"))
    for path in [path for path in paths if part is None or held_out(path.stem) is PARTS[part]][:limit]:
        photo = root / "images" / f"{path.stem}.jpg"
        if not photo.is_file():
            raise SystemExit(f"{photo} is missing, but its mask is here.")
        image, labels = np.array(Image.open(photo).convert("RGB")), np.array(Image.open(path))
        if image.shape[:2] != labels.shape:
            raise SystemExit(f"{photo.name} is {image.shape[:2]}, but its mask is {labels.shape} (rows, columns).")
        yield image, labels


def measure_regions(
    vlm: VisionLanguageModel,
    root: Path,
    names: list[str],
    limit: int | None = None,
    part: str | None = None,
    only: Collection[str] = (),
) -> Regions:
    """The logits of every region that has a name and is large enough.

    Args:
        vlm: compares regions with names.
        root: folder of the set.
        names: the candidate names, in the order of the labels.
        limit: only the first so many images; None for all.
        part: a key of PARTS, or None for all images.
        only: the names whose regions are measured; empty for all.

    Raises:
        SystemExit: with one line, when there is no region.
    """
    texts = vlm.embed_texts(names)
    logits, labels, photos = [], [], []
    for photo, (image, index) in enumerate(labelled_images(root, part, limit)):
        sizes = np.bincount(index.ravel(), minlength=IGNORE + 1)[: len(names)]
        large = np.flatnonzero(sizes >= max(1, SMALLEST_REGION * index.size))
        classes = [c for c in large if names[c] not in NOT_NAMES and (not only or names[c] in only)]
        masks = np.stack([index == c for c in classes]) if classes else np.empty((0, *index.shape), bool)
        regions = vlm.embed_regions(image, MaskProposals.from_masks(masks, np.ones(len(classes))), lambda _: None)
        logits.append(vlm.logits(regions, texts).cpu())
        labels += map(int, classes)
        photos += [photo] * len(classes)
    if not labels:
        raise SystemExit(f"{root} has no labelled region.")
    return Regions(torch.cat(logits), torch.tensor(labels), torch.tensor(photos))


def draw_vocabularies(regions: Regions, pool: list[int], same_photo: bool) -> Tensor:
    """Random vocabularies of each region, int64 (N, VOCABULARIES, VOCABULARY_SIZE), the right name first.

    A pool of fewer than VOCABULARY_SIZE names makes shorter vocabularies.

    Args:
        regions: the regions.
        pool: indices of the names that are drawn.
        same_photo: whether other names of the same photo are drawn before the rest of the pool.
    """
    rng = random.Random(SEED)
    labels, photos = regions.labels.tolist(), regions.photos.tolist()
    present: dict[int, list[int]] = {}
    for label, photo in zip(labels, photos, strict=True):
        present.setdefault(photo, []).append(label)

    def draw(label: int, photo: int) -> list[int]:
        same = [c for c in present[photo] if c != label] if same_photo else []
        same = rng.sample(same, min(len(same), VOCABULARY_SIZE - 1))
        rest = [c for c in pool if c != label and c not in same]
        return [label, *same, *rng.sample(rest, min(len(rest), VOCABULARY_SIZE - 1 - len(same)))]

    pairs = zip(labels, photos, strict=True)
    return torch.tensor([[draw(label, photo) for _ in range(VOCABULARIES)] for label, photo in pairs])


def accuracy_table(regions: Regions, names: list[str]) -> str:
    """The Markdown table. Confidence is the mean probability of the likeliest name, equal to top-1 if calibrated.

    Args:
        regions: the regions.
        names: the candidate names, in the order of the columns of the logits.
    """
    pool = [i for i, name in enumerate(names) if name not in NOT_NAMES]
    column = torch.full((len(names),), -1)
    column[pool] = torch.arange(len(pool))
    logits, labels = regions.logits[:, pool], column[regions.labels]
    ranks = (logits > logits.gather(1, labels[:, None])).sum(1)
    confidence = logits.softmax(1).amax(1)
    rows = [(f"all {len(pool)} names", _share(ranks < 1), _share(ranks < 5), _share(confidence))]
    for same_photo, title in ((False, "at random"), (True, "from the same photo first")):
        words = draw_vocabularies(regions, pool, same_photo)
        candidates = regions.logits[:, None].expand(-1, words.shape[1], -1).gather(2, words)
        right = candidates.argmax(2) == 0
        rows.append((f"{words.shape[2]} names, {title}", _share(right), "", _share(candidates.softmax(2).amax(2))))
    return markdown.table(("vocabulary", "top-1 %", "top-5 %", "confidence %"), rows)


def _share(values: Tensor) -> str:
    return f"{100 * values.float().mean():.1f}"


def main() -> None:
    parser = argparse.ArgumentParser(description="Accuracy of a vision-language model on ground-truth regions.")
    parser.add_argument("--root", type=Path, required=True, help="folder with images/, masks/ and classes.json")
    parser.add_argument("--vlm", default="mini", metavar="MODEL", help=f"{factory.MODEL_HELP} (%(default)s)")
    parser.add_argument("--part", choices=PARTS, help="the images that training leaves out, or the others")
    parser.add_argument("--only", type=lambda text: text.split(","), default=[], help="count only these names' regions")
    parser.add_argument("--first", type=int, help="only the first so many names (80: the things of COCO)")
    parser.add_argument("--limit", type=int, help="only the first so many images")
    arguments = parser.parse_args()
    names = class_names(arguments.root)[: arguments.first]
    if unknown := set(arguments.only) - set(names):
        raise SystemExit(f"{arguments.root.name} has no class {', '.join(sorted(unknown))}.")
    try:
        vlm = factory.create_model(arguments.vlm)
        regions = measure_regions(vlm, arguments.root, names, arguments.limit, arguments.part, arguments.only)
    except UserError as error:
        raise SystemExit(str(error)) from None
    print(f"{arguments.vlm} on {arguments.root.name}: {len(regions.labels)} regions\n")
    print(accuracy_table(regions, names))


if __name__ == "__main__":
    main()
