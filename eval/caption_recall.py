"""How often a caption finds its photo.

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


def read_captions(root: Path) -> dict[str, list[str]]:
    """Captions by key. Exits with one line when there are none."""
    path = root / "captions.json"
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
        found = {str(key): [str(text) for text in texts] for key, texts in table.items() if texts}
    except FileNotFoundError:
        raise SystemExit(f"There is no {path}.") from None
    except (ValueError, AttributeError, TypeError):
        raise SystemExit(f"{path} is not a list of captions by key.") from None
    if not found:
        raise SystemExit(f"{path} has no caption.")
    return found


def caption_ranks(vlm: VisionLanguageModel, root: Path, texts: dict[str, list[str]]) -> Tensor:
    """For each caption, how many photos are likelier than its own, int64 (captions,)."""
    photos = []
    for key in tqdm(texts, desc="photos", unit="photo", disable=None):
        pixels = image.load(root / "images" / f"{key}.jpg").pixels
        whole = MaskProposals.from_masks(np.ones((1, *pixels.shape[:2]), bool), np.ones(1))
        photos.append(vlm.embed_regions(pixels, whole, lambda _: None))
    words = vlm.embed_texts([text for each in texts.values() for text in each])
    logits = vlm.logits(torch.cat(photos), words)
    own = torch.tensor([photo for photo, each in enumerate(texts.values()) for _ in each], device=logits.device)
    return (logits > logits.gather(0, own[None])).sum(0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Recall of photos by their captions.")
    parser.add_argument("--root", type=Path, required=True, help="folder with images/ and captions.json")
    parser.add_argument("--vlm", default="mini", metavar="MODEL", help=f"{factory.MODEL_HELP} (%(default)s)")
    arguments = parser.parse_args()
    texts = read_captions(arguments.root)
    try:
        found = caption_ranks(factory.create_model(arguments.vlm), arguments.root, texts)
    except UserError as error:
        raise SystemExit(str(error)) from None
    print(f"{arguments.vlm} on {arguments.root.name}: {len(texts)} photos, {len(found)} captions\n")
    recalls = {f"recall@{depth} %": f"{100 * (found < depth).float().mean():.1f}" for depth in DEPTHS}
    print(markdown.table(list(recalls), [list(recalls.values())]))


if __name__ == "__main__":
    main()
