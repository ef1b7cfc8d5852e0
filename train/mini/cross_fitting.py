"""Cross-fitting: the decoder is trained on cost maps of a dense head that was not trained on the same photos.

On its own training photos the bundled dense head is far better than on other photos: its label maps of voc_train have
an mIoU of 79, and its label maps of held-out photos one of 66. A decoder trained on cost maps of the head's training
photos would trust the head too much. So the photos
are split in two: a head of the same kind is trained on one half, and the decoder on its out-of-fold predictions for the
other half, as in stacked generalisation (Wolpert 1992). Only training needs this head; the demo uses the bundled one.
"""

import argparse
import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from accelerate import PartialState
from safetensors.torch import save

from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.heads import Heads
from ovseg_demo.models.mini.towers import ImageTower
from ovseg_demo.weights.loading import load_for_inference
from train.common import command
from train.common.image_sets import LabelledSet
from train.common.run_folder import RunFolder
from train.common.schedule import Schedule
from train.mini.heads import dense
from train.mini.heads.windows import SMOKE_WINDOWS, WindowFeatures, WindowSizes
from train.mini.lexicon import Lexicon

FILE = "mini-heads.safetensors"
SCHEDULE = Schedule(steps=800, learning_rate=1e-3, averaging=0.995, save_every=50)


@dataclass(frozen=True)
class OutOfFoldRecipe:
    """How an out-of-fold dense head is trained.

    Attributes:
        schedule: how long and how fast.
        windows: which windows are cut from the photos.
        places: how much is drawn in a step.
    """

    schedule: Schedule
    windows: WindowSizes
    places: dense.DenseBatchSizes


def recipe_of(seed: int, precision: str, smoke: bool) -> OutOfFoldRecipe:
    """The recipe of an out-of-fold head of a run.

    Args:
        seed: of the run.
        precision: of the run.
        smoke: whether a few small windows and steps are enough, to see that all of it runs.
    """
    schedule = replace(SCHEDULE, seed=seed, precision=precision)
    if not smoke:
        return OutOfFoldRecipe(schedule, WindowSizes(), dense.DenseBatchSizes())
    short = replace(schedule, steps=6, warmup=2, save_every=2, log_every=2)
    return OutOfFoldRecipe(short, SMOKE_WINDOWS, dense.SMOKE_BATCH)


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


def add_windows_argument(parser: argparse.ArgumentParser) -> None:
    """Add --windows, the folder of windows that the heads' own training has encoded."""
    parser.add_argument(
        "--windows", type=Path, metavar="DIR", help="folder of the windows of `train.mini.heads` (default: OUT/windows)"
    )


def train_out_of_fold_heads(
    labelled: Sequence[LabelledSet],
    lexicon: Lexicon,
    recipe: OutOfFoldRecipe,
    folder: RunFolder,
    windows_path: Path | None,
    state: PartialState,
) -> Path:
    """The path of a file of heads whose dense head is out-of-fold; the head is trained where the file is missing.

    Args:
        labelled: the sets; the half of their photos for the head is used.
        lexicon: text embeddings of the training classes.
        recipe: how the head is trained.
        folder: folder of the run; the file is in its subfolder "head".
        windows_path: folder of the windows; None for the subfolder "windows".
        state: the processes, of which the main one encodes the windows.

    Raises:
        TrainingError: see `fit`.
    """
    stage = RunFolder(folder.path / "head", asdict(recipe.schedule))
    path = stage.path / FILE
    if not path.exists():
        device = command.device_of(state)
        with state.main_process_first():
            windows = WindowFeatures(
                labelled, ImageTower(device), Anchors(device), recipe.windows, windows_path or folder.path / "windows"
            )
        trained = dense.train_dense_head(
            split_half(labelled, head=True), lexicon, windows, recipe.places, recipe.schedule, stage
        )
        heads = load_for_inference(Heads(), "mini-heads")
        trained.copy_to(heads, "dense")
        stage.replace(FILE, lambda file: file.write(save(heads.state_dict())))
    return path
