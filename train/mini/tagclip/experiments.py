"""The training runs: every combination of a set, a decoder and a seed, each in a folder of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ovseg_demo.methods.tagclip.decoder import DecoderSizes
from ovseg_demo.methods.tagclip.mini import DECODER_SIZES, MiniTagCLIPModel
from ovseg_demo.methods.tagclip.training_info import METADATA_KEY, TrainingInfo, class_splits
from ovseg_demo.models.mini.towers import TextTower
from train.common.image_sets import LabelledSet
from train.common.loop import fit
from train.common.run_folder import RunFolder
from train.common.schedule import Schedule
from train.mini.conversion import half_precision
from train.mini.tagclip import initialisation
from train.mini.tagclip.batches import SplitSet, WindowBatches, embed_class_names
from train.mini.tagclip.training import TagCLIPMiniTraining, TrustyLoss

FILE = "tagclip-mini.safetensors"

UNSEEN = {
    "voc_train": class_splits()["voc"].unseen,
    "coco_train": (
        *("giraffe", "suitcase", "frisbee", "skateboard", "carrot", "scissors", "cardboard", "grass", "playingfield"),
        *("river", "road", "tree", "potted plant", "sheep", "couch", "train", "tv"),
    ),
}
"""For each set the unseen classes. In coco_train these are its classes among TagCLIP's fifteen unseen classes of COCO
and VOC's five unseen classes under their names in COCO, so that voc_dev can measure its models too."""

SCHEDULES = {
    "voc_train": Schedule(steps=400, learning_rate=1e-3, warmup=30, averaging=0.0, save_every=50),
    "coco_train": Schedule(steps=200, learning_rate=1e-3, warmup=30, averaging=0.0, save_every=50),
}
DECODER_RATE = 0.3
"""Factor on the learning rate of the decoder, which starts from useful weights and would forget untrained words."""

BATCH = 4


@dataclass(frozen=True)
class Variant:
    """A decoder and its loss.

    Attributes:
        title: name in tables.
        sizes: sizes of the decoder.
        trusty: loss of the trusty map.
    """

    title: str
    sizes: DecoderSizes
    trusty: TrustyLoss = field(default_factory=TrustyLoss)


VARIANTS = {
    "tagclip": Variant("TagCLIP", DECODER_SIZES),
    "zegclip": Variant("ZegCLIP", replace(DECODER_SIZES, learner=False, trusty=False)),
    "shipped": Variant("TagCLIP, background new too", DECODER_SIZES, TrustyLoss(alpha=0.5, background=True)),
    "published": Variant("TagCLIP, α as published", DECODER_SIZES, TrustyLoss(alpha=0.25)),
}


@dataclass(frozen=True)
class TrainingRun:
    """A training run.

    Attributes:
        split_set: the set and its split.
        variant: a key of VARIANTS.
        schedule: how long and how fast to train, and the seed.
        batch: number of windows in a step.
    """

    split_set: SplitSet
    variant: str
    schedule: Schedule
    batch: int

    @property
    def name(self) -> str:
        """The name of the run's folder."""
        return f"{self.split_set.source.name}-{self.variant}-{self.schedule.seed}"


def training_runs(
    source: LabelledSet, variants: Sequence[str], seeds: int, steps: int | None = None
) -> Iterator[TrainingRun]:
    """Every combination of a seed and a variant for a set, seed by seed.

    Args:
        source: the set, whose name is a key of UNSEEN.
        variants: keys of VARIANTS.
        seeds: the number of seeds, which count from 0.
        steps: number of steps in place of the schedule's; None leaves it.
    """
    split_set, schedule = SplitSet(source, UNSEEN[source.name]), SCHEDULES[source.name]
    if steps is not None:
        schedule = replace(schedule, steps=steps, warmup=1)
    for seed in range(seeds):
        for variant in variants:
            yield TrainingRun(split_set, variant, replace(schedule, seed=seed), BATCH)


def train_run(run: TrainingRun, views: dict[str, Tensor], tower: TextTower, out: Path) -> Path:
    """The weights file of a run; where it is missing, the run is trained, or resumed.

    Args:
        run: the run.
        views: features of the windows of the run's set.
        tower: the text tower, which embeds the names of the classes.
        out: folder that holds the folders of runs.

    Raises:
        TrainingError: see `fit`.
    """
    config = {
        "photos": len(run.split_set.source.dataset),
        "unseen": run.split_set.unseen,
        "variant": asdict(VARIANTS[run.variant]),
        "schedule": asdict(run.schedule),
        "batch": run.batch,
    }
    folder = RunFolder(out / run.name, config)
    path = folder.path / FILE
    if path.exists():
        return path
    variant = VARIANTS[run.variant]
    torch.manual_seed(run.schedule.seed)
    model = MiniTagCLIPModel(variant.sizes)
    initialisation.initialise_model(model)
    training = TagCLIPMiniTraining(model, embed_class_names(tower, run.split_set.seen), variant.trusty)
    data = WindowBatches(views, run.split_set.rows(), run.batch)
    fit(training, data, run.schedule, folder, rates={"model.decoder": DECODER_RATE}, title=run.name)
    info = TrainingInfo(
        run.split_set.seen, "photo", seen_penalty=False
    )  # the seen penalty costs more than it gains here, see docs/training.md
    content = save(half_precision(model.state_dict()), {METADATA_KEY: info.to_json()})
    folder.replace(FILE, lambda file: file.write(content))
    return path
