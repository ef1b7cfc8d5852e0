"""CLIP with the contrastive loss of its adaptation, and its retrieval accuracy on held-out pairs."""

from typing import Any

import numpy as np
import open_clip
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models.clip.text import encode_texts
from train.common.contrastive import HIGHEST_SCALE, contrastive_loss
from train.common.sampling import Batch
from train.ovseg.clip.pair_batches import Tokenizer, region_of_pair
from train.ovseg.pairs.shards import PairShards

_PAIRS_PER_VOCABULARY = 256
"""Number of pairs whose words are the vocabulary in which retrieval is measured."""


class AdaptationTraining(nn.Module):
    """The symmetric contrastive loss between masked regions and their words, over the batches of all processes.

    Args:
        clip: its image tower is a MaskPromptedTower.
        prompts: whether only the mask prompts of the image tower are trained; otherwise the whole image tower and the
            logit scale are trained, without prompts. The text tower is always frozen.
    """

    def __init__(self, clip: open_clip.CLIP, prompts: bool) -> None:
        super().__init__()
        self.clip = clip.requires_grad_(False)
        self._prompts = prompts
        for value in [clip.visual.mask_embedding] if prompts else [*clip.visual.parameters(), clip.logit_scale]:
            value.requires_grad_()

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The loss of a batch of `PairBatches`, "contrastive"."""
        with torch.no_grad():
            self.clip.logit_scale.clamp_(max=HIGHEST_SCALE)
            words = encode_texts(self.clip, batch["tokens"])
        regions = self.clip.visual(batch["crops"], batch["masks"] if self._prompts else None)
        return {"contrastive": contrastive_loss(regions, words, self.clip.logit_scale.exp())}


@torch.inference_mode()
def retrieval_accuracy(clip: open_clip.CLIP, shards: PairShards, rows: np.ndarray, tokenize: Tokenizer) -> float:
    """The share of pairs, 0 to 1, whose word is the most similar to the region among the words of up to 256 pairs.

    Args:
        clip: its image tower is a MaskPromptedTower; it gets the masks if it has mask prompts.
        shards: the pairs.
        rows: rows of the pairs that are measured, at least one.
        tokenize: turns words into tokens (B, 77).
    """
    visual: Any = clip.visual  # a MaskPromptedTower
    device = clip.logit_scale.device
    right = 0
    for start in range(0, len(rows), _PAIRS_PER_VOCABULARY):
        pairs = [shards[int(row)] for row in rows[start : start + _PAIRS_PER_VOCABULARY]]
        words = sorted({pair.word for pair in pairs})
        crops, masks = (
            torch.stack(tensors)
            for tensors in zip(*(region_of_pair(p, visual.image_size[0]) for p in pairs), strict=True)
        )
        masks = None if visual.mask_embedding is None else masks.to(device)
        texts = F.normalize(encode_texts(clip, tokenize(words).to(device)), dim=-1)
        best = (visual(crops.to(device), masks) @ texts.T).argmax(1).tolist()
        right += sum(words[index] == pair.word for index, pair in zip(best, pairs, strict=True))
    return right / len(rows)
