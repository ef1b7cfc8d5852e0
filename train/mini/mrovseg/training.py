"""The model with its losses: the word of every place, and the word and the mask of every query.

A query begins from a cell of the photo, so the class that most of the cell shows is its target, and there is nothing to
match. Queries whose cell has no majority are not taught.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.mrovseg.mini_model import MiniMROVSegModel
from train.common.losses import dice_loss
from train.common.sampling import Batch
from train.mini.mrovseg.batches import UNLABELLED

_NAMES = ("places", "classes", "masks", "dice")
_PLACES, _QUERIES = 1500, 48
"""How many places and queries of each photo the losses see."""


class MROVSegMiniTraining(nn.Module):
    """The fusion and the queries with their losses; of the dense head only the last layer learns.

    Args:
        model: the model that is trained.
    """

    def __init__(self, model: MiniMROVSegModel) -> None:
        super().__init__()
        self.model = model
        model.dense.requires_grad_(False)
        model.dense.out.requires_grad_(True)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch of `ViewBatches`, means over its photos."""
        names = ("low", "high", "texts", "labels", "seeds", "excluded")
        losses = [self._losses(*photo) for photo in zip(*(batch[name] for name in names), strict=True)]
        return dict(zip(_NAMES, torch.stack(losses).mean(0), strict=True))

    def _losses(
        self, low: Tensor, high: Tensor, texts: Tensor, labels: Tensor, seeds: Tensor, excluded: Tensor
    ) -> Tensor:
        predicted = self.model(low[None], high[None])
        labels = labels.flatten()
        places = _drawn(labels, _PLACES)
        queries = (seeds != UNLABELLED).nonzero()[:, 0]
        queries = queries[torch.randperm(len(queries), device=queries.device)[:_QUERIES]]
        if not len(queries) or not len(places):  # nothing in the photo has a label
            return torch.stack([predicted.embeddings.sum() * 0] * len(_NAMES))
        named = self._choice(predicted.embeddings[0].flatten(1).mT[places], texts, labels[places], excluded)
        classes = self._choice(predicted.classes[0, queries], texts, seeds[queries], excluded)
        masks = predicted.masks[0, queries].flatten(1)[:, places]
        wanted = (seeds[queries, None] == labels[places]).to(masks)
        binary = F.binary_cross_entropy_with_logits(masks, wanted)
        return torch.stack([named, classes, binary, dice_loss(masks.sigmoid(), wanted).mean()])

    def _choice(self, embeddings: Tensor, texts: Tensor, rows: Tensor, excluded: Tensor) -> Tensor:
        """The cross entropy of embeddings (N, D) over texts (K, D), where rows (N,) are right."""
        logits = self.model.scale * (embeddings - self.model.mean) @ texts.T
        return F.cross_entropy(logits.masked_fill(excluded[rows], -1e4), rows)


def _drawn(labels: Tensor, count: int) -> Tensor:
    """`count` labelled places, weighted by one over the square root of the frequency of their labels."""
    labelled = (labels != UNLABELLED).nonzero()[:, 0]
    if not len(labelled):
        return labelled
    rows = labels[labelled]
    weights = torch.bincount(rows)[rows].float().rsqrt()
    return labelled[torch.multinomial(weights, count, replacement=True)]
