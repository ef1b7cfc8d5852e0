"""The recipes of MROVSeg, which its paper gives in part (appendix B.1) and SAN's published ones complete, and a tiny
recipe for smoke runs."""

from dataclasses import dataclass, replace
from typing import Any

from ovseg_demo.methods.mrovseg.settings import SETTINGS, MROVSegSettings
from train.common.augmentation import RelativeAugmentation
from train.common.loss_terms import LossTerms, PointSampling
from train.common.schedule import Schedule

TINY = "tiny"
"""The CLIP of `initial_model.tiny_clip`."""

TERMS = LossTerms(classes=2.0, masks=5.0, dice=5.0, void=0.1, mask_term="cross entropy", sampling=PointSampling())
"""The paper names no losses; these are SAN's (Xu et al., CVPR 2023), which are Mask2Former's for COCO."""

ABLATIONS: dict[str, dict[str, Any]] = {
    "adapter": {"adapter": False},
    "fusion": {"fusion": False},
    "masked-attention": {"masked_attention": False},
    "slices": {"single_resolution": True},
}
"""The parts that can be left out, for the paper's table 2, with the settings that leave them out."""


@dataclass(frozen=True)
class MROVSegRecipe:
    """Everything about a training except its data.

    Attributes:
        settings: what the model is built by.
        clip: initial weights: an id of the catalogue, the path of a file, or TINY.
        schedule: how long and how fast to train.
        views: sizes of the augmented photos.
        batch: photos of a step over all processes.
        terms: terms of the loss and of the matching.
        fixed_views: whether each photo is always seen whole and as it is, see `fixed_views`, instead of augmented.
    """

    settings: MROVSegSettings
    clip: str
    schedule: Schedule
    views: RelativeAugmentation
    batch: int = 32
    terms: LossTerms = TERMS
    fixed_views: bool = False


_SCHEDULE = Schedule(
    steps=60_000,
    learning_rate=2e-4,
    warmup=0,
    decay="poly",
    weight_decay=1e-4,
    clip=0.01,
    averaging=0.0,
    save_every=1000,
)


def _recipe(architecture: str, clip: str) -> MROVSegRecipe:
    settings = SETTINGS[architecture]
    return MROVSegRecipe(settings, clip, _SCHEDULE, RelativeAugmentation(settings.short_side, (0.5, 2.0)))


RECIPES = {"b": _recipe("ViT-B-16", "clip-vit-b16"), "l": _recipe("ViT-L-14-336", "clip-vit-l14-336")}
"""The recipes by the size of the ViT."""


def without(recipe: MROVSegRecipe, parts: list[str]) -> MROVSegRecipe:
    """A recipe whose model lacks these parts, keys of ABLATIONS."""
    for part in parts:
        recipe = replace(recipe, settings=replace(recipe.settings, **ABLATIONS[part]))
    return recipe


def smoke(recipe: MROVSegRecipe) -> MROVSegRecipe:
    """A recipe made so small that it is done in seconds; its model is good for nothing."""
    base = SETTINGS["ViT-B-16"]
    sizes = {"short_side": 64, "queries": 6, "adapter_width": 32, "adapter_heads": 2, "mask_width": 16}
    layers = {name: getattr(base, name) for name in ("fusion_layers", "pyramid_layers", "split")}
    return replace(
        recipe,
        settings=replace(recipe.settings, architecture=TINY, **layers, **sizes),
        clip=TINY,
        schedule=replace(recipe.schedule, steps=6, save_every=2, log_every=2),
        views=RelativeAugmentation(64, recipe.views.factors),
        batch=2,
        terms=replace(recipe.terms, sampling=PointSampling(points=64)),
    )
