"""Cross-fitting: the decoder is trained on cost maps of a dense head that was not trained on the same photos.

On its own training photos the bundled dense head is far better than on other photos: its label maps of voc_train have
an mIoU of 79, and its label maps of held-out photos one of 66. A decoder trained on cost maps of the head's training
photos would trust the head too much. So the photos
are split in two: a head of the same kind is trained on one half, and the decoder on its out-of-fold predictions for the
other half, as in stacked generalisation (Wolpert 1992). Only training needs this head; the demo uses the bundled one.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

from safetensors.torch import save

from ovseg_demo.models.mini.heads import Heads
from ovseg_demo.weights.loading import load_for_inference
from train.common.image_sets import LabelledSet
from train.common.run_folder import RunFolder
from train.common.schedule import Schedule
from train.mini.heads import dense
from train.mini.heads.windows import WindowFeatures
from train.mini.lexicon import Lexicon

FILE = "mini-heads.safetensors"


def in_head_half(key: str) -> bool:
    """Whether the photo with this key is in the half that trains the head; independent of `eval.datasets.split`."""
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()[1] % 2 == 0


def split_half(labelled: Sequence[LabelledSet], head: bool) -> list[LabelledSet]:
    """One half of the photos of each set; sets without a photo in that half are left out.

    Args:
        labelled: the sets.
        head: True for the half that trains the head, False for the half that trains the decoder.
    """
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
    windows: WindowFeatures,
    sizes: dense.DenseBatchSizes,
    schedule: Schedule,
    folder: RunFolder,
) -> Path:
    """The path of a file of heads whose dense head is out-of-fold; the head is trained where the file is missing.

    Args:
        labelled: the sets; the half of their photos for the head is used.
        lexicon: text embeddings of the training classes.
        windows: windows of the photos.
        sizes: how much is drawn in a step.
        schedule: how long and how fast the head is trained.
        folder: folder of the run; the file is in its subfolder "head".

    Raises:
        TrainingError: see `fit`.
    """
    stage = RunFolder(folder.path / "head", asdict(schedule))
    path = stage.path / FILE
    if not path.exists():
        trained = dense.train_dense_head(split_half(labelled, head=True), lexicon, windows, sizes, schedule, stage)
        heads = load_for_inference(Heads(), "mini-heads")
        trained.copy_to(heads, "dense")
        stage.replace(FILE, lambda file: file.write(save(heads.state_dict())))
    return path
