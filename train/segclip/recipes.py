"""The published recipe of SegCLIP (Luo et al. 2023, section 3.2, and the released code), and a tiny one."""

from dataclasses import dataclass, replace

from train.common.schedule import Schedule
from train.segclip.losses import LossForm

EPOCHS, WARMUP = 10, 0.15
"""How often every caption is seen, and the share of the steps over which the learning rate rises, as published."""

TINY = "tiny"
"""The CLIP of `initial_model.tiny_model`."""


@dataclass(frozen=True)
class SegCLIPRecipe:
    """Everything about a training except its data and how long it takes.

    Attributes:
        form: whose settings, where the released code and the paper differ: what is frozen, and the superpixel loss.
        clip: the CLIP that training begins with: an id of the catalogue, the path of a file, or TINY.
        batch: pairs of a step over all processes, each the negative of all others.
        chunk: so many pairs of a process are embedded at once; None for all. The batch of the losses stays whole.
        mixes_batch: whether the centres of an image attend to the patches of all images that are embedded at once, as
            they do by mistake in the released training code.
    """

    form: LossForm = "code"
    clip: str = "clip-vit-b16"
    batch: int = 768
    chunk: int | None = None
    mixes_batch: bool = False


def schedule(steps: int) -> Schedule:
    """The published schedule, over so many steps."""
    return Schedule(
        steps=steps,
        learning_rate=4e-3,
        warmup=round(WARMUP * steps),
        weight_decay=0.05,
        betas=(0.9, 0.98),
        epsilon=1e-6,
        clip=1.0,
        averaging=0.0,
        save_every=500,
    )


def smoke(recipe: SegCLIPRecipe) -> SegCLIPRecipe:
    """A recipe made so small that a few steps are done in seconds; its model is good for nothing."""
    return replace(recipe, clip=TINY, batch=4, chunk=2)
