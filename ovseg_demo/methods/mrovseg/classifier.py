"""Class logits of queries: cosines of class embeddings with texts, and with the void embedding, which is no class."""

import torch
from torch import Tensor
from torch.nn import functional as F


def class_logits(embeddings: Tensor, texts: Tensor, void: Tensor, scale: float) -> Tensor:
    """Logits of queries for C texts and, last, for void, (B, Q, C + 1).

    Args:
        embeddings: class embeddings, unit vectors (B, Q, D).
        texts: unit vectors (C, D).
        void: the learned embedding (1, D), of any length.
        scale: the factor of the cosines.
    """
    words = torch.cat([texts, F.normalize(void, dim=-1)])
    return scale * embeddings @ words.mT
