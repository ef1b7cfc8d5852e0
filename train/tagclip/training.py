"""The module that is trained: TagCLIP with its losses against the text embeddings of its vocabularies."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ovseg_demo.methods.tagclip.decoder import Decoder
from ovseg_demo.methods.tagclip.prompted_tower import PromptedTower
from ovseg_demo.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise
from train.common.sampling import Batch
from train.tagclip.losses import UNSEEN, LossTerms, tagclip_losses
from train.tagclip.pseudo_labels import draw_pseudo_unseen, pseudo_label, relabel


@dataclass(frozen=True)
class UnseenHandling:
    """How unseen classes are treated.

    Attributes:
        transductive: whether the decoder is prompted with unseen classes, their pixels getting pseudo-labels.
        strict: whether the labels do not say where unseen classes are, see `class_split.hide_unseen`.
        terms: weights of the loss.
    """

    transductive: bool
    strict: bool
    terms: LossTerms


class TagCLIPTraining(nn.Module):
    """The image tower, of which only the prompts are trained, the decoder, and the text embeddings of each set.

    Args:
        visual: the image tower.
        decoder: the decoder, with a trusty token or without.
        texts: for each set the text embeddings of its classes, unit vectors (C, D), which are not trained.
        seen: for each set whether each class is seen, bool (C,); all true for supervised training.
        plan: how unseen classes are treated.
    """

    texts: Tensor
    seen: Tensor

    def __init__(
        self,
        visual: PromptedTower,
        decoder: Decoder,
        texts: Sequence[Tensor],
        seen: Sequence[Tensor],
        plan: UnseenHandling,
    ) -> None:
        super().__init__()
        for name, parameter in visual.named_parameters():
            parameter.requires_grad_("prompt" in name)
        self.visual, self.decoder = visual, decoder
        self._plan = plan
        self._sizes = [len(classes) for classes in texts]
        self.register_buffer("texts", torch.cat(list(texts)), persistent=False)
        self.register_buffer("seen", torch.cat(list(seen)), persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch of `labelled_batches.LabelledBatches` whose photos are all of one set."""
        plan, labels = self._plan, batch["labels"]
        texts, seen = (torch.split(values, self._sizes)[batch["sets"][0]] for values in (self.texts, self.seen))
        prompted = self._prompted_classes(labels, seen)
        logits = self.decoder(self.visual(normalise(batch["images"], IMAGENET_MEAN, IMAGENET_STD)), texts[prompted])
        labels = relabel(labels, prompted, len(seen))
        if plan.transductive:
            labels = pseudo_label(logits.classes, labels, seen, plan.strict)
        unseen = (labels == UNSEEN) | (labels >= 0) & ~seen[prompted][labels.clamp(min=0)]
        return tagclip_losses(logits, labels, unseen, plan.terms)

    def _prompted_classes(self, labels: Tensor, seen: Tensor) -> Tensor:
        """The classes whose words the decoder gets, int64 (K,), ascending."""
        if self._plan.transductive:
            return torch.arange(len(seen), device=seen.device)
        prompted = seen.clone()
        if self._plan.strict and self.decoder.trusty is not None:
            prompted[draw_pseudo_unseen(labels)] = False
        return prompted.nonzero()[:, 0]
