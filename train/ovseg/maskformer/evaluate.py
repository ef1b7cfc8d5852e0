"""Recall of the masks, and mIoU of the label maps, of a trained MaskFormer by itself, without CLIP's image tower.

    python -m train.ovseg.maskformer.evaluate --weights runs/maskformer/maskformer.safetensors --data DIR/coco_train

DIR/coco_train holds images/, masks/ and classes.json. Prints a Markdown table: the share of the ground truth's
segments (one for each class of each photo) that any query's mask, of any class, overlaps with an IoU of 0.5 and of
0.75; and the mIoU of the label maps of MaskFormer alone (OVSeg's P = A, Liang et al. 2023, section 3.1). Background is
not counted.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F
from tqdm import tqdm

from eval import datasets, markdown
from eval.datasets.base import Dataset, DatasetError
from eval.datasets.split import PARTS, held_out
from eval.metrics import GROUND_TRUTH, UNION, Confusion, Scores
from ovseg_demo.engine import check_device
from ovseg_demo.errors import exit_status
from ovseg_demo.proposals.maskformer.predictor import MaskFormerPredictor
from train.common.image_sets import LabelledSet
from train.ovseg.maskformer.class_embeddings import create_class_embedder
from train.ovseg.maskformer.trained_model import TrainedMaskFormer, load_trained_maskformer
from train.ovseg.maskformer.training import class_logits

LEVELS = (0.5, 0.75)
_ALL = "all"


@dataclass(frozen=True)
class Measurement:
    """Quality of the masks and label maps of a MaskFormer on a data set.

    Attributes:
        overlaps: the best IoU of any mask with each segment of the ground truth, float32 (S,), 0 to 1.
        scores: IoU and accuracy of the label maps.
    """

    overlaps: Tensor
    scores: Scores

    def recall(self, level: float) -> float:
        """The share of segments with a best IoU of `level` or more; NaN if there is no segment."""
        return (self.overlaps >= level).float().mean().item()


@torch.inference_mode()
def measure_maskformer(trained: TrainedMaskFormer, dataset: Dataset, device: str | torch.device = "cpu") -> Measurement:
    """Measure a model on every photo of a data set.

    Args:
        trained: the model and the size of the photos that it takes.
        dataset: photos with labels.
        device: where the model runs.

    Raises:
        UserError: when a photo or a label file cannot be used.
    """
    source = LabelledSet(dataset.name, dataset, (True,) * len(dataset.vocabulary))
    predictor = MaskFormerPredictor(trained.model.to(device), trained.shortest, trained.longest)
    texts = create_class_embedder(trained.clip, torch.device(device))(source.names)
    vocabulary = torch.cat([texts, F.normalize(trained.non_object, dim=-1)])
    overlaps, confusion = [torch.empty(0)], Confusion(len(source.names))
    for sample in tqdm(dataset, desc="photos", unit="photo", disable=None):
        pixels, labels = source.load(sample)
        output = predictor.predict(pixels)
        logits = class_logits(output.class_embeddings.cpu(), vocabulary)
        masks = F.interpolate(torch.cat([*output.enlarged_mask_logits()]).cpu()[None], labels.shape, mode="bilinear")[0]
        confusion.add(labels, label_map(logits, masks))
        overlaps.append(best_overlaps(masks > 0, torch.from_numpy(labels)))
    return Measurement(torch.cat(overlaps), confusion.scores())


def label_map(logits: Tensor, masks: Tensor) -> np.ndarray:
    """The class of every pixel, int64 (H, W), with the highest sum over queries of class times mask probability.

    This is MaskFormer's semantic inference (Cheng et al. 2021, section 3.4).

    Args:
        logits: class logits, (Q, K + 1), "no object" last, which is in the softmax but is never predicted.
        masks: mask logits, (Q, H, W).
    """
    probabilities = logits.softmax(1)[:, :-1]
    return torch.einsum("qk,qhw->khw", probabilities, masks.sigmoid()).argmax(0).numpy()


def best_overlaps(masks: Tensor, labels: Tensor) -> Tensor:
    """The best IoU of any mask with each of the N segments, of which every class in `labels` is one, float32 (N,).

    Args:
        masks: bool (Q, H, W).
        labels: integers (H, W); pixels with negative labels are in no segment and are not counted in the masks.
    """
    known = labels >= 0
    masks_of_known = masks[:, known].float()
    classes = labels[known].unique()
    segments = (labels[known] == classes[:, None]).float()
    common = masks_of_known @ segments.T
    union = masks_of_known.sum(1)[:, None] + segments.sum(1) - common
    return (common / union.clamp(min=1)).amax(0)


def results_table(measured: Measurement) -> str:
    """A measurement as a Markdown table, in percent."""
    cells = {f"recall at IoU {level}": measured.recall(level) for level in LEVELS}
    cells |= {f"mIoU ({rule})": measured.scores.means[rule].miou for rule in (UNION, GROUND_TRUTH)}
    cells |= {"pixel accuracy": measured.scores.pixel_accuracy}
    row = [str(len(measured.overlaps)), *map(_percent, cells.values())]
    return markdown.table(["segments", *cells], [row])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m train.ovseg.maskformer.evaluate", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument(
        "--weights", type=Path, required=True, metavar="FILE", help="what train.ovseg.maskformer has written"
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds images, masks and classes.json")
    parser.add_argument(
        "--part", choices=(*PARTS, _ALL), default="held-out", help="of the photos of a set (default: %(default)s)"
    )
    parser.add_argument("--device", default="cpu", help="default: %(default)s")
    parsed = parser.parse_args(arguments)
    return exit_status(lambda: _run(parsed))


def _run(arguments: argparse.Namespace) -> int:
    check_device(arguments.device)
    dataset = _part(datasets.open_dataset("folder_named", arguments.data), arguments.part)
    print(results_table(measure_maskformer(load_trained_maskformer(arguments.weights), dataset, arguments.device)))
    return 0


def _part(dataset: Dataset, part: str) -> Dataset:
    """One part of the fixed split, or all. Raises DatasetError for a part without photos."""
    kept = tuple(sample for sample in dataset if part == _ALL or held_out(sample.key) is PARTS[part])
    if not kept:
        raise DatasetError(f"None of the {len(dataset)} photos is in the part '{part}'.")
    return replace(dataset, samples=kept)


def _percent(share: float) -> str:
    return f"{100 * share:.1f}"


if __name__ == "__main__":
    sys.exit(main())
