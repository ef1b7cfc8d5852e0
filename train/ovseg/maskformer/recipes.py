"""The recipes of OVSeg's two MaskFormers (Liang et al. 2023, section 4.1, and the released configurations), and the
recipe of a small model for experiments."""

from dataclasses import dataclass, field, replace
from typing import Any

from ovseg_demo.models.factory import MINI
from ovseg_demo.proposals.maskformer.model import BACKBONES, MaskFormer
from train.common.augmentation import AugmentationSettings
from train.common.schedule import Schedule


@dataclass(frozen=True)
class Architecture:
    """The sizes of a MaskFormer.

    Attributes:
        backbone: a key of BACKBONES.
        backbone_sizes: keyword arguments of the backbone; sizes that are left out are as released.
        head_sizes: keyword arguments of MaskFormer; sizes that are left out are as released.
    """

    backbone: str
    backbone_sizes: dict[str, Any] = field(default_factory=dict)
    head_sizes: dict[str, Any] = field(default_factory=dict)

    def build(self, text_width: int) -> MaskFormer:
        """A MaskFormer of random weights for text embeddings of `text_width` dimensions."""
        return MaskFormer(BACKBONES[self.backbone](**self.backbone_sizes), text_width, **self.head_sizes)


@dataclass(frozen=True)
class MaskFormerRecipe:
    """Everything about a training except its data.

    Attributes:
        architecture: what is trained.
        schedule: how long and how fast to train.
        backbone_rate: factor on the backbone's learning rate.
        frozen: parts of the backbone that keep their initial weights, if initial weights are given.
        views: sizes of the augmented photos.
        batch: photos of a step over all processes.
        shown: the shorter side of photos in evaluation, and the largest longer side, in pixels.
        clip: the CLIP of the text embeddings, as `class_embeddings.create_class_embedder` takes them.
    """

    architecture: Architecture
    schedule: Schedule
    backbone_rate: float
    frozen: tuple[str, ...]
    views: AugmentationSettings
    batch: int
    shown: tuple[int, int]
    clip: str


_SCHEDULE = Schedule(
    steps=120_000,
    learning_rate=2e-4,
    warmup=1500,
    decay="poly",
    weight_decay=1e-4,
    clip=0.01,
    averaging=0.0,
    save_every=1000,
)

RECIPES = {
    "r101c": MaskFormerRecipe(
        architecture=Architecture("r101c"),
        schedule=_SCHEDULE,
        backbone_rate=0.1,
        frozen=("stem", "res2"),
        views=AugmentationSettings(side=512, shortest=(800,), longest=1333),
        batch=32,
        shown=(512, 2048),
        clip="clip-vit-b16",
    ),
    "swinb": MaskFormerRecipe(
        architecture=Architecture("swinb"),
        schedule=replace(_SCHEDULE, learning_rate=6e-5, weight_decay=0.01),
        backbone_rate=1.0,
        frozen=(),
        views=AugmentationSettings(side=640, shortest=tuple(range(320, 1281, 64)), longest=2560),
        batch=32,
        shown=(640, 2560),
        clip="clip-vit-l14",
    ),
    "small": MaskFormerRecipe(
        architecture=Architecture(
            "swinb",
            {"width": 32, "depths": (2, 2, 2, 2), "heads": (1, 2, 4, 8), "window": 8, "drop_path": 0.1},
            {"width": 96, "queries": 50, "layers": 4, "feedforward": 384, "class_width": 384},
        ),
        schedule=replace(
            _SCHEDULE, steps=5000, learning_rate=5e-4, warmup=200, weight_decay=0.01, clip=1.0, save_every=200
        ),
        backbone_rate=1.0,
        frozen=(),
        views=AugmentationSettings(side=256, shortest=(192, 256, 320), longest=640),
        batch=8,
        shown=(256, 640),
        clip=MINI,
    ),
}
"""By the name of their backbone."""

_TINY_BACKBONES = {
    "r101c": {"width": 8, "depths": (1, 1, 1, 3)},
    "swinb": {"width": 16, "depths": (1, 1, 1, 1), "heads": (1, 1, 2, 2), "window": 4},
}


def smoke(recipe: MaskFormerRecipe) -> MaskFormerRecipe:
    """A recipe made so small that it is done in a minute; its model is good for nothing."""
    architecture = recipe.architecture
    return replace(
        recipe,
        architecture=replace(
            architecture,
            backbone_sizes=_TINY_BACKBONES[architecture.backbone],
            head_sizes={"width": 32, "queries": 10, "layers": 3, "feedforward": 64, "class_width": 64},
        ),
        schedule=replace(recipe.schedule, steps=6, warmup=2, save_every=2, log_every=2),
        views=AugmentationSettings(side=96, shortest=(96, 128), longest=160),
        batch=4,
        shown=(96, 160),
        clip=MINI,
    )


def shortened(recipe: MaskFormerRecipe, steps: int | None, batch: int | None) -> MaskFormerRecipe:
    """A recipe with another number of steps or another batch.

    Args:
        recipe: the recipe.
        steps: number of steps, of which the warm-up takes a tenth at most; None leaves the schedule.
        batch: photos of a step over all processes; None leaves the recipe's.
    """
    if steps is not None:
        recipe = replace(recipe, schedule=recipe.schedule.shortened(steps))
    return recipe if batch is None else replace(recipe, batch=batch)
