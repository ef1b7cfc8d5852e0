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
"""Of each set the classes that are kept unseen. Of coco_train those of TagCLIP's fifteen that it has, and the five of
VOC under their names there, so that voc_dev can measure it too."""

SCHEDULES = {
    "voc_train": Schedule(steps=400, learning_rate=1e-3, warmup=30, averaging=0.0, save_every=50),
    "coco_train": Schedule(steps=200, learning_rate=1e-3, warmup=30, averaging=0.0, save_every=50),
}
DECODER_RATE = 0.3
"""Factor on the decoder's learning rate: it is well initialised, and would forget words that are not in training."""

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
    """One training.

    Attributes:
        split_set: the set and its split.
        variant: a key of VARIANTS.
        schedule: with the seed.
        batch: windows a step.
    """

    split_set: SplitSet
    variant: str
    schedule: Schedule
    batch: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.split_set.source.name}-{self.variant}-{self.schedule.seed}"


def training_runs(
    source: LabelledSet, variants: Sequence[str], seeds: int, steps: int | None = None
) -> Iterator[TrainingRun]:
    """Every combination for a set, seed by seed; `steps` instead of its schedule's own."""
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
        views: encoded windows of its set.
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
    about = TrainingInfo(
        run.split_set.seen, "photo", seen_penalty=False
    )  # 0.1 off costs more than it gains here, see the docs
    content = save(half_precision(model.state_dict()), {METADATA_KEY: about.to_json()})
    folder.replace(FILE, lambda file: file.write(content))
    return path
