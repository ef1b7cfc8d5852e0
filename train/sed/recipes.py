"""The recipes of SED's two models (Xie et al. 2024, section 4.1, and the released configurations), and a tiny recipe
for smoke runs."""

from dataclasses import dataclass, replace

from ovseg_demo.methods.sed.decoder import DecoderSizes
from ovseg_demo.methods.sed.loading import ARCHITECTURES
from train.common.augmentation import AugmentationSettings
from train.common.schedule import Schedule
from train.sed.losses import IgnoreRule

TINY = "tiny"
"""The architecture of `initial_model.tiny_clip`."""

_VIEWS = AugmentationSettings(side=768, shortest=(768,), longest=2666)


@dataclass(frozen=True)
class SEDRecipe:
    """Everything about a training except its data.

    Attributes:
        architecture: open_clip's name of the CLIP, or TINY.
        clip: initial weights: an id of the catalogue, or the path of a file.
        sizes: sizes of the decoder.
        schedule: how long and how fast to train.
        clip_rate: factor on the image tower's learning rate.
        pooling: side, in places, of the squares over which the decoder's attention averages.
        views: sizes of the augmented photos.
        batch: photos of a step over all processes.
        ignore: how pixels without a label count, see `losses.IgnoreRule`.
    """

    architecture: str
    clip: str
    sizes: DecoderSizes
    schedule: Schedule
    clip_rate: float = 0.01
    pooling: int = 2
    views: AugmentationSettings = _VIEWS
    batch: int = 4
    ignore: IgnoreRule = "zeros"


_SCHEDULE = Schedule(
    steps=80_000,
    learning_rate=2e-4,
    warmup=0,
    decay="cosine",
    weight_decay=1e-4,
    clip=0.01,
    averaging=0.0,
    save_every=1000,
)

RECIPES = {
    "b": SEDRecipe(
        architecture="convnext_base_w_320",
        clip="clip-convnext-base-w-320",
        sizes=ARCHITECTURES["convnext_base_w_320"],
        schedule=_SCHEDULE,
    ),
    "l": SEDRecipe(
        architecture="convnext_large_d_320",
        clip="clip-convnext-large-d-320",
        sizes=ARCHITECTURES["convnext_large_d_320"],
        schedule=_SCHEDULE,
    ),
}
"""The recipes by the size of the ConvNeXt."""


def smoke(recipe: SEDRecipe) -> SEDRecipe:
    """A recipe made so small that it is done in seconds; its model is good for nothing."""
    return replace(
        recipe,
        architecture=TINY,
        clip=TINY,
        sizes=DecoderSizes(skips=(48, 32, 24), widths=(32, 16, 16, 16), guides=(8, 4, 4)),
        schedule=replace(recipe.schedule, steps=6, save_every=2, log_every=2),
        views=AugmentationSettings(side=64, shortest=(64,), longest=128),
        batch=2,
    )
