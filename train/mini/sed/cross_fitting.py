"""Honest costs: the photos that the decoder learns from are read with a dense head that has not seen them.

The bundled dense head knows the photos it was trained on far better than others: its map of voc_train has an mIoU of 79
there, and of 66 on photos left out. A decoder that learnt from those would trust it too much. So the photos are parted
in two: a head of the same kind is trained on one half, and the decoder on what that head says of the other, as in
stacked generalisation (Wolpert 1992). Only training needs this head; the demo uses the bundled one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import save

from ovseg_demo.models.mini.heads import Heads
from ovseg_demo.models.mini.towers import ImageTower
from ovseg_demo.weights.loading import load_for_inference
from train.common.image_sets import LabelledSet
from train.common.run_folder import RunFolder
from train.common.schedule import Schedule
from train.mini.heads import dense
from train.mini.lexicon import Lexicon

FILE = "mini-heads.safetensors"


def in_head_half(key: str) -> bool:
    """Whether a photo, by its name, belongs to the head's half; independent of `eval.datasets.split`."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[1] % 2 == 0


def split_half(labelled: Sequence[LabelledSet], head: bool) -> list[LabelledSet]:
    """The head's half of the sets, or the decoder's; sets without a photo there are left out."""
    kept = [
        replace(
            source,
            dataset=replace(source.dataset, samples=tuple(s for s in source.dataset if in_head_half(s.key) is head)),
        )
        for source in labelled
    ]
    return [source for source in kept if len(source.dataset)]


def train_out_of_fold_heads(
    labelled: Sequence[LabelledSet],
    lexicon: Lexicon,
    tower: ImageTower,
    sizes: dense.DenseBatchSizes,
    schedule: Schedule,
    folder: RunFolder,
) -> Path:
    """The bundled heads' file with a dense head of its own, trained on the head's half; made if it is not there."""
    stage = RunFolder(folder.path / "head", asdict(schedule))
    path = stage.path / FILE
    if not path.exists():
        head, scale, mean = dense.train_dense_head(
            split_half(labelled, head=True), lexicon, tower, sizes, schedule, stage
        )
        made = load_for_inference(Heads(), "mini-heads")
        made.dense.load_state_dict(head.state_dict())
        made.dense_mean.copy_(mean)
        made.dense_scale.fill_(scale)
        stage.replace(FILE, lambda file: file.write(save(made.state_dict())))
    return path
