"""The module that is trained: SED with its losses against the text embeddings of its vocabularies."""

from collections.abc import Sequence

import torch
from open_clip.timm_model import TimmModel
from torch import Tensor, nn

from ovseg_demo.methods.sed.decoder import Decoder, SpatialFusion, cost_map
from ovseg_demo.models.clip.convnext import hierarchical_features
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD
from train.common.sampling import Batch
from train.common.schedule import Decays, decay_all_but, parameters_held_by
from train.sed.losses import IgnoreRule, sed_losses

TOWER = "visual"
"""Prefix of the names of the image tower's parameters."""


class SEDTraining(nn.Module):
    """The image tower of a CLIP, the decoder, and the text embeddings of each set.

    The image tower gets gradients through the cost map alone: the features of its earlier stages, which the decoder
    takes too, are detached, as published. The text tower is not trained.

    Args:
        visual: the image tower.
        decoder: the decoder, for P prompts.
        texts: for each set the text embeddings of its T classes, unit vectors (T, P, D), which are not trained.
        pooling: side, in places, of the squares over which the decoder's attention averages.
        ignore: how pixels without a label count, see `losses.IgnoreRule`.
    """

    texts: Tensor
    mean: Tensor
    std: Tensor

    def __init__(
        self, visual: TimmModel, decoder: Decoder, texts: Sequence[Tensor], pooling: int, ignore: IgnoreRule
    ) -> None:
        super().__init__()
        self.visual, self.decoder = visual, decoder
        self._pooling = pooling
        self._ignore: IgnoreRule = ignore
        self._sizes = [len(classes) for classes in texts]
        self.register_buffer("texts", torch.cat(list(texts)), persistent=False)
        self.register_buffer("mean", torch.tensor(CLIP_MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(CLIP_STD).view(3, 1, 1), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch of `labelled_batches.LabelledBatches` whose photos are all of one set."""
        texts = torch.split(self.texts, self._sizes)[batch["sets"][0]]
        features = hierarchical_features(self.visual, (batch["images"] - self.mean) / self.std)
        with torch.autocast(self.mean.device.type, enabled=False):  # cosines in half precision have too few digits
            cost = cost_map(features.dense.float(), texts)
        logits = self.decoder(cost, [skip.detach() for skip in features.skips], self._pooling)
        return sed_losses(logits, batch["labels"], self._ignore)


def decays(module: nn.Module) -> Decays:
    """Which parameters of a module decay, as published: all but norms, except the norms of `SpatialFusion`."""
    fusions = [f"{name}." for name, part in module.named_modules() if isinstance(part, SpatialFusion)]
    norms = parameters_held_by(module, (nn.LayerNorm, nn.GroupNorm))
    return decay_all_but({name for name in norms if not name.startswith(tuple(fusions))})
