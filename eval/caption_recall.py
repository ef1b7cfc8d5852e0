"""Recall of photos by their captions.

    python -m eval.caption_recall --root PATH [--vlm mini]

PATH holds images/KEY.jpg and captions.json ({"KEY": ["a caption", ...]}). Every caption is compared with every photo;
recall@K is the share of captions whose own photo is among the K likeliest. Prints a Markdown table.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from eval import markdown
from ovseg_demo import image
from ovseg_demo.errors import UserError
from ovseg_demo.models import factory
from ovseg_demo.models.base import VisionLanguageModel
from ovseg_demo.proposals.base import MaskProposals

DEPTHS = (1, 5, 10)
"""Values of K."""


def read_captions(root: Path) -> dict[str, list[str]]:
    """The captions of each photo by its key.

    Args:
        root: folder with captions.json.

    Raises:
        SystemExit: with one line, when there are no captions.
    """
    path = root / "captions.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        captions = {str(key): [str(text) for text in texts] for key, texts in table.items() if texts}
    except FileNotFoundError:
        raise SystemExit(f"There is no {path}.") from None
    except (ValueError, AttributeError, TypeError):
        raise SystemExit(f"{path} is not a list of captions by key.") from None
    if not captions:
        raise SystemExit(f"{path} has no caption.")
    return captions


def caption_ranks(vlm: VisionLanguageModel, root: Path, texts: dict[str, list[str]]) -> Tensor:
    """For each caption, the number of photos that are likelier than the caption's own photo, int64 (captions,).

    Args:
        vlm: compares photos with captions.
        root: folder with images/.
        texts: the captions of each photo by its key.

    Raises:
        ImageError: when a photo cannot be read.
    """
    photos = []
    for key in tqdm(texts, desc="photos", unit="photo", disable=None):
        pixels = image.load(root / "images" / f"{key}.jpg").pixels
        whole = MaskProposals.from_masks(np.ones((1, *pixels.shape[:2]), bool), np.ones(1))
        photos.append(vlm.embed_regions(pixels, whole, lambda _: None))
    words = vlm.embed_texts([caption for captions in texts.values() for caption in captions])
    logits = vlm.logits(torch.cat(photos), words)
    own = torch.tensor([photo for photo, captions in enumerate(texts.values()) for _ in captions], device=logits.device)
    return (logits > logits.gather(0, own[None])).sum(0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Recall of photos by their captions.")
    parser.add_argument("--root", type=Path, required=True, help="folder with images/ and captions.json")
    parser.add_argument("--vlm", default="mini", metavar="MODEL", help=f"{factory.MODEL_HELP} (%(default)s)")
    arguments = parser.parse_args()
    texts = read_captions(arguments.root)
    try:
        ranks = caption_ranks(factory.create_model(arguments.vlm), arguments.root, texts)
    except UserError as error:
        raise SystemExit(str(error)) from None
    print(f"{arguments.vlm} on {arguments.root.name}: {len(texts)} photos, {len(ranks)} captions\n")
    recalls = {f"recall@{depth} %": f"{100 * (ranks < depth).float().mean():.1f}" for depth in DEPTHS}
    print(markdown.table(list(recalls), [list(recalls.values())]))


if __name__ == "__main__":
    main()
