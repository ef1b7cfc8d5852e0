"""The module that is trained: SegCLIP with its three losses, over batches that need not fit into memory as a whole."""

from typing import cast

import open_clip
import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from ovseg_demo.methods.segclip.image_tower import PATCH_BLOCKS, GroupingTower
from ovseg_demo.methods.segclip.reconstruction import ReconstructionBranch, draw_kept, reconstruction_loss
from ovseg_demo.models.clip.text import encode_texts
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD, normalise
from train.common.contrastive import HIGHEST_SCALE, contrastive_loss
from train.common.sampling import Batch
from train.segclip.losses import LossForm, superpixel_loss

_EMBEDDINGS = (
    "clip.token_embedding",
    "clip.positional_embedding",
    "clip.visual.class_embedding",
    "clip.visual.positional_embedding",
    "clip.visual.conv1",
    "clip.visual.ln_pre",
)
"""What the released code freezes."""

_OF_CLIP = (
    "clip.transformer",
    "clip.ln_final",
    "clip.text_projection",
    "clip.logit_scale",
    *(f"clip.visual.transformer.resblocks.{block}" for block in range(PATCH_BLOCKS)),
)

RATES = dict.fromkeys((*_EMBEDDINGS, *_OF_CLIP), 1e-3)
"""Factors on the learning rate, as published: the text tower and what comes before the semantic group module learn at
4e-6, the module, all that comes after it and the reconstruction branch at 4e-3."""


def decays(name: str, value: nn.Parameter) -> bool:
    """Whether a parameter decays, as published: all but biases, so gains and the scale of cosines too.

    Args:
        name: dotted name of the parameter.
        value: the parameter, which does not matter.
    """
    return "bias" not in name


class SegCLIPTraining(nn.Module):
    """A SegCLIP and its reconstruction branch, with the losses of a batch.

    With `chunk` the activations of only so many pairs exist at a time. Pairs are embedded chunk by chunk, of which only
    the embeddings and the two losses within images are kept; the contrastive loss is that of the whole batch; and in
    the backward pass each chunk is computed again, with the same random numbers, to turn the gradient of its embeddings
    into that of the weights. This is GradCache (Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under
    Memory Limited Setup"), done by activation checkpointing. Gradients are those of the whole batch.

    Args:
        clip: its image tower is a GroupingTower.
        branch: the reconstruction branch for this tower.
        form: whose settings: of the released code, or of the paper, which freezes nothing.
        chunk: so many pairs are embedded at once; None for the whole batch.
    """

    def __init__(
        self, clip: open_clip.CLIP, branch: ReconstructionBranch, form: LossForm, chunk: int | None = None
    ) -> None:
        super().__init__()
        self.clip, self.branch = clip, branch
        self._form: LossForm = form
        self._chunk = chunk
        frozen = () if form == "paper" else tuple(f"{prefix}." for prefix in _EMBEDDINGS)
        for name, value in self.named_parameters():
            value.requires_grad_(not f"{name}.".startswith(frozen))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch of `CaptionBatches`."""
        with torch.no_grad():
            self.clip.logit_scale.clamp_(max=HIGHEST_SCALE)
        pixels = batch["images"]
        kept = draw_kept(len(pixels), batch["superpixels"].shape[1], pixels.device)
        size = self._chunk or len(pixels)
        chunks = zip(*(part.split(size) for part in (pixels, batch["tokens"], batch["superpixels"], kept)), strict=True)
        if size >= len(pixels):
            embedded = [self._embed(*chunk) for chunk in chunks]
        else:
            embedded = [checkpoint(self._embed, *chunk, use_reentrant=False) for chunk in chunks]
        images, texts, reconstruction, superpixels = (torch.cat(parts) for parts in zip(*embedded, strict=True))
        return {
            "contrastive": contrastive_loss(images, texts, self.clip.logit_scale.exp().clamp(max=100)),
            "reconstruction": reconstruction.mean(),
            "superpixels": superpixels.mean(),
        }

    def _embed(
        self, pixels: Tensor, tokens: Tensor, superpixels: Tensor, kept: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Embeddings of n images and of their texts, (n, D); the losses of reconstruction and superpixels, (n,).

        Both losses are the mean over the images, repeated for each of them, so that chunks can be joined.
        """
        normalised = normalise(pixels, CLIP_MEAN, CLIP_STD)
        tower = cast(GroupingTower, self.clip.visual)
        found = tower(normalised)
        predicted = self.branch(tower, normalised, kept).float()
        reconstruction = reconstruction_loss(predicted, normalised, kept).expand(len(pixels))
        of_superpixels = superpixel_loss(found.grouping.hard, superpixels, self._form).expand(len(pixels))
        return found.images, encode_texts(self.clip, tokens), reconstruction, of_superpixels
