"""What is trained: every combination of a set, a decoder and a seed, each in a folder of its own."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from safetensors.torch import save
from torch import Tensor

from ovseg_demo.methods.tagclip.about import METADATA, About, splits
from ovseg_demo.methods.tagclip.decoder import Sizes
from ovseg_demo.methods.tagclip.mini import SIZES, Model
from ovseg_demo.vlm.mini.towers import TextTower
from train.common.folder import RunFolder
from train.common.loop import Schedule, fit
from train.common.sources import Labelled
from train.mini.convert import halved
from train.tagclip_mini import start
from train.tagclip_mini.data import Data, Lesson, embeddings
from train.tagclip_mini.training import Training, Trusty

FILE = "tagclip-mini.safetensors"

UNSEEN = {
    "voc_train": splits()["voc"].unseen,
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
"""A factor on the learning rate: the decoder begins as it should be, and would forget words that are not taught."""

BATCH = 4


@dataclass(frozen=True)
class Variant:
    """A decoder and its loss.

    Attributes:
        title: for tables.
        sizes: of the decoder.
        trusty: what its trusty map learns.
    """

    title: str
    sizes: Sizes
    trusty: Trusty = field(default_factory=Trusty)


VARIANTS = {
    "tagclip": Variant("TagCLIP", SIZES),
    "zegclip": Variant("ZegCLIP", replace(SIZES, learner=False, trusty=False)),
    "shipped": Variant("TagCLIP, background new too", SIZES, Trusty(alpha=0.5, background=True)),
    "published": Variant("TagCLIP, α as published", SIZES, Trusty(alpha=0.25)),
}


@dataclass(frozen=True)
class Run:
    """One training.

    Attributes:
        lesson: the set and its split.
        variant: a key of VARIANTS.
        schedule: with the seed.
        batch: windows a step.
    """

    lesson: Lesson
    variant: str
    schedule: Schedule
    batch: int

    @property
    def name(self) -> str:
        """Of its folder."""
        return f"{self.lesson.source.name}-{self.variant}-{self.schedule.seed}"


def runs(source: Labelled, variants: Sequence[str], seeds: int, steps: int | None = None) -> Iterator[Run]:
    """Every combination for a set, seed by seed; `steps` instead of its schedule's own."""
    lesson, schedule = Lesson(source, UNSEEN[source.name]), SCHEDULES[source.name]
    if steps is not None:
        schedule = replace(schedule, steps=steps, warmup=1)
    for seed in range(seeds):
        for variant in variants:
            yield Run(lesson, variant, replace(schedule, seed=seed), BATCH)


def train(run: Run, views: dict[str, Tensor], tower: TextTower, out: Path) -> Path:
    """The file of a run; trained, or gone on with, if it is not there.

    Args:
        run: which.
        views: of its set.
        tower: reads the words.
        out: holds the folders of runs.

    Raises TrainingError, see `fit`.
    """
    config = {
        "photos": len(run.lesson.source.dataset),
        "unseen": run.lesson.unseen,
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
    model = Model(variant.sizes)
    start.begin(model)
    training = Training(model, embeddings(tower, run.lesson.seen), variant.trusty)
    data = Data(views, run.lesson.rows(), run.batch)
    fit(training, data, run.schedule, folder, rates={"model.decoder": DECODER_RATE}, title=run.name)
    about = About(run.lesson.seen, "photo", handicap=False)  # 0.1 off costs more than it gains here, see the docs
    content = save(halved(model.state_dict()), {METADATA: about.to_json()})
    folder.replace(FILE, lambda file: file.write(content))
    return path
