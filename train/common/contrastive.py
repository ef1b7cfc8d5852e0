"""CLIP's contrastive loss over the batches of all processes."""

import math

import torch
from accelerate import PartialState
from open_clip.loss import ClipLoss
from torch import Tensor
from torch.nn import functional as F

HIGHEST_SCALE = math.log(100)
"""The logarithm that CLIP's learned scale is kept below (Radford et al. 2021, section 2.5)."""


def contrastive_loss(images: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """The symmetric cross entropy between the images of this process and all texts, and the reverse, a scalar.

    Averaged over processes, its gradient is that of one process with the batches of all.

    Args:
        images: embeddings (B, D), of any length and precision.
        texts: embeddings of their texts (B, D).
        scale: factor of the cosines, a scalar.
    """
    state = PartialState()
    loss = ClipLoss(local_loss=True, gather_with_grad=True, rank=state.process_index, world_size=state.num_processes)
    with torch.autocast(images.device.type, enabled=False):  # a cosine times 100 has few digits in bfloat16
        embeddings = (F.normalize(vectors.float(), dim=-1) for vectors in (images, texts))
        return loss(*embeddings, scale)
