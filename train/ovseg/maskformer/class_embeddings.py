"""The text spaces that classes are learnt in: a CLIP's, or that of the bundled mini model."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ovseg_demo.models import factory
from ovseg_demo.models.clip.templates import VILD_TEMPLATES
from ovseg_demo.models.mini.towers import TextTower
from ovseg_demo.vocabulary import readable_text

Embed = Callable[[Sequence[str]], Tensor]
"""From words to unit vectors (len(words), D), float32 on the CPU."""


def create_class_embedder(clip: str, device: torch.device) -> Embed:
    """The text tower of a CLIP, with ViLD's templates as in OVSeg, or of the mini model, which reads plain words.

    Args:
        clip: "mini", an id of the catalogue, or the path of a file of weights.
        device: device of the text tower.

    Raises CheckpointError when the weights are missing, damaged or of an unknown architecture.
    """
    if clip == factory.MINI:
        tower = TextTower(device)
        return lambda words: tower([readable_text(word) for word in words]).cpu()
    model = factory.create_clip(clip, device, templates=VILD_TEMPLATES)
    return lambda words: model.embed_texts(words).cpu()
