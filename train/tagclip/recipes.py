"""The recipes of TagCLIP and ZegCLIP (their published configurations), and a tiny recipe for smoke runs."""

from dataclasses import dataclass, replace
from typing import Literal

from ovseg_demo.methods.tagclip.decoder import DecoderSizes
from ovseg_demo.methods.tagclip.training_info import Templates
from train.common.augmentation import AugmentationSettings
from train.common.schedule import Schedule
from train.tagclip.losses import LossTerms

Benchmark = Literal["voc", "coco"]
TrainingSetting = Literal["inductive", "transductive", "supervised"]
ModelName = Literal["tagclip", "zegclip"]

TINY = "tiny"
"""The CLIP of `initial_model.tiny_clip`."""

_SIZES, _TERMS = DecoderSizes(), LossTerms()
_ZEGCLIP_SIZES, _ZEGCLIP_TERMS = DecoderSizes(learner=False, trusty=False), LossTerms(masks=100.0)

# mmsegmentation's Resize of (2048, 512) by a factor from 0.5 to 2; its long side binds beyond 1 : 4 only.
_VIEWS = AugmentationSettings(
    side=512, shortest=range(256, 1025), longest=4096, largest_share=0.75, fill=(124, 116, 104)
)


@dataclass(frozen=True)
class TagCLIPRecipe:
    """Everything about a training except its data and the handling of unseen classes.

    Attributes:
        prompts: number of prompts in every layer of the image tower.
        templates: the templates of words.
        schedule: how long and how fast to train.
        clip: initial weights: an id of the catalogue, the path of a file, or TINY.
        sizes: sizes of the decoder.
        terms: terms of the loss.
        views: sizes of the augmented photos.
        batch: photos of a step over all processes.
    """

    prompts: int
    templates: Templates
    schedule: Schedule
    clip: str = "clip-vit-b16"
    sizes: DecoderSizes = _SIZES
    terms: LossTerms = _TERMS
    views: AugmentationSettings = _VIEWS
    batch: int = 16


_SCHEDULE = Schedule(
    steps=20_000,
    learning_rate=2e-4,
    warmup=1500,
    decay="poly",
    lowest=1e-6,
    weight_decay=0.01,
    clip=None,
    averaging=0.0,
    save_every=500,
)
_RECIPES: dict[Benchmark, TagCLIPRecipe] = {
    "voc": TagCLIPRecipe(10, "photo", _SCHEDULE),
    "coco": TagCLIPRecipe(100, "scenes", replace(_SCHEDULE, steps=80_000)),
}


def published(benchmark: Benchmark, setting: TrainingSetting, model: ModelName) -> TagCLIPRecipe:
    """The published recipe of a model for VOC or COCO-Stuff.

    Self-training has half of the steps. For VOC only inductive training has the trusty token.

    Args:
        benchmark: "voc" or "coco".
        setting: "inductive", "transductive" (self-training) or "supervised".
        model: "tagclip" or "zegclip".
    """
    recipe = _RECIPES[benchmark]
    if setting == "transductive":
        recipe = replace(recipe, schedule=replace(recipe.schedule, steps=recipe.schedule.steps // 2))
    if model == "zegclip":
        return replace(recipe, sizes=_ZEGCLIP_SIZES, terms=_ZEGCLIP_TERMS)
    return replace(recipe, sizes=replace(_SIZES, trusty=benchmark == "coco" or setting == "inductive"))


def smoke(recipe: TagCLIPRecipe) -> TagCLIPRecipe:
    """A recipe made so small that it is done in seconds; its model is good for nothing."""
    return replace(
        recipe,
        clip=TINY,
        prompts=2,
        sizes=replace(recipe.sizes, width=64),
        schedule=replace(recipe.schedule, steps=6, warmup=2, save_every=2, log_every=2),
        views=replace(recipe.views, side=64, shortest=range(48, 97), longest=256),
        batch=2,
    )
