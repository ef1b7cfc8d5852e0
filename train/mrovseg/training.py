"""The module that is trained: MROVSeg with its losses against the text embeddings of its vocabularies."""

from collections.abc import Sequence
from functools import reduce
from operator import add

import torch
from torch import Tensor, nn

from ovseg_demo.methods.mrovseg.model import ClipFeatures, MROVSeg, Prediction
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD, normalise
from train.common.loss_terms import LossTerms
from train.common.mask_losses import Segments, layer_losses, mask_count
from train.common.sampling import Batch
from train.common.schedule import Decays, decay_all_but, parameters_held_by
from train.mrovseg import fixed_views

_EMBEDDINGS = ("query_embed", "query_pos", "pos_embed", "prop_pos", "positional_embedding")


class MROVSegTraining(nn.Module):
    """A MROVSeg and the text embeddings of each set. CLIP is not trained.

    Args:
        model: the model.
        texts: for each set the text embeddings of its training classes, unit vectors (K, D), which are not trained.
        terms: terms of the loss and of the matching.
    """

    texts: Tensor

    def __init__(self, model: MROVSeg, texts: Sequence[Tensor], terms: LossTerms) -> None:
        super().__init__()
        self.model = model
        self._terms = terms
        self._sizes = [len(classes) for classes in texts]
        self.register_buffer("texts", torch.cat(list(texts)), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch of `LabelledBatches` or `FixedViews`.

        They are three of the last adapter block, and, where earlier blocks are supervised, one of all of them.
        """
        last = self.model.decode(self._features(batch))
        segments = [Segments.of(labels) for labels in batch["labels"]]
        count = mask_count(segments)
        with torch.autocast(self.texts.device.type, enabled=False):  # cosines in half precision have too few digits
            losses = self._losses(last, batch["sets"], segments, count)
            earlier = [self._losses(block, batch["sets"], segments, count) for block in last.auxiliary]
        if not earlier:
            return losses
        return losses | {"earlier blocks": torch.stack([reduce(add, block.values()) for block in earlier]).sum()}

    def _features(self, batch: Batch) -> ClipFeatures:
        if "images" not in batch:
            return fixed_views.features_of(batch)
        return self.model.features(normalise(batch["images"], CLIP_MEAN, CLIP_STD))

    def _losses(
        self, prediction: Prediction, sets: Sequence[int], segments: Sequence[Segments], count: Tensor
    ) -> dict[str, Tensor]:
        """The losses of the queries after one adapter block."""
        vocabularies = torch.split(self.texts, self._sizes)
        logits = [
            self.model.class_logits(embeddings[None], vocabularies[number])[0]
            for embeddings, number in zip(prediction.embeddings.float(), sets, strict=True)
        ]
        return layer_losses(logits, prediction.masks.float(), segments, count, self._terms)


def decays(module: nn.Module) -> Decays:
    """Which parameters of a module decay, as SAN's: all but those of norms, queries and positions."""
    embeddings = {name for name, _ in module.named_parameters() if name.rpartition(".")[2] in _EMBEDDINGS}
    return decay_all_but(parameters_held_by(module, (nn.LayerNorm,)) | embeddings)
