"""The module that is trained: MaskFormer with its losses against the text embeddings of its vocabularies."""

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models.clip.region_classifier import LOGIT_SCALE
from ovseg_demo.proposals.maskformer.model import MaskFormer
from ovseg_demo.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD
from train.common.mask_losses import Segments, layer_losses, mask_count
from train.common.sampling import Batch
from train.common.schedule import Decays, decay_all_but, parameters_held_by

_NORMS = (nn.LayerNorm, nn.GroupNorm)
_TABLES = "relative_position_bias_table"


class MaskFormerTraining(nn.Module):
    """A MaskFormer, the learned embedding of "no object", and the text embeddings of each set.

    Args:
        model: the MaskFormer.
        texts: for each set the text embeddings of its training classes, unit vectors (K, D), which are not trained.
    """

    texts: Tensor
    mean: Tensor
    std: Tensor

    def __init__(self, model: MaskFormer, texts: Sequence[Tensor]) -> None:
        super().__init__()
        self.model = model
        width = texts[0].shape[1]
        self.non_object = nn.Parameter(torch.randn(1, width) * width**-0.5)
        self._sizes = [len(classes) for classes in texts]
        self.register_buffer("texts", torch.cat(list(texts)).clone(), persistent=False)
        self.register_buffer("mean", torch.tensor(IMAGENET_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(IMAGENET_STD).view(3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch of `LabelledBatches`: three of the last decoder layer, one of all earlier layers."""
        layers = self.model((batch["images"] - self.mean) / self.std)
        segments = [Segments.of(labels) for labels in batch["labels"]]
        count = mask_count(segments)
        vocabularies = self._vocabularies()
        with torch.autocast(self.mean.device.type, enabled=False):
            losses_of_layers = []
            for layer in layers:
                logits = [
                    class_logits(embeddings, vocabularies[number])
                    for embeddings, number in zip(layer.class_embeddings.float(), batch["sets"], strict=True)
                ]
                losses_of_layers.append(layer_losses(logits, layer.mask_logits.float(), segments, count))
        *earlier, last = losses_of_layers
        return last | {"earlier layers": torch.stack([reduce(add, losses.values()) for losses in earlier]).sum()}

    def _vocabularies(self) -> list[Tensor]:
        """For each set the unit vectors (K + 1, D) of its classes and, last, of "no object"."""
        none = F.normalize(self.non_object, dim=-1)
        return [torch.cat([texts, none]) for texts in torch.split(self.texts, self._sizes)]


def class_logits(classes: Tensor, vocabulary: Tensor) -> Tensor:
    """Scaled cosines (Q, K) of class embeddings (Q, D) with unit vectors (K, D)."""
    return LOGIT_SCALE * F.normalize(classes, dim=-1) @ vocabulary.T


def decays(module: nn.Module) -> Decays:
    """Which parameters of a module decay: all but those of norms, embeddings and Swin's tables of position biases."""
    tables = {name for name, _ in module.named_parameters() if name.rpartition(".")[2] == _TABLES}
    return decay_all_but(parameters_held_by(module, (*_NORMS, nn.Embedding)) | tables)
