"""TagCLIP's decoder: text queries attend to patches, and the attention logits of a text are the logits of its mask.

A relationship descriptor joins every class's text embedding with the embedding of the whole image. The trusty token, a
learned query beside the texts, stands for all classes that training has not shown. In three decoder layers the queries
attend to the patches; the mask logits are the attention logits of the last one (attention-to-mask, SegViT, Zhang et al.
2022). Without the trusty token and its learner this is ZegCLIP (Zhou et al., CVPR 2023).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.tagclip.windows import ImageEmbeddings

DROPOUT = 0.1
"""Share of features that training drops, in the decoder and in the prompts of the image encoder."""


@dataclass(frozen=True)
class DecoderSizes:
    """The sizes and parts of a decoder.

    Attributes:
        width: D, dimensions of text and patch embeddings.
        heads: attention heads of every layer.
        layers: number of layers that attend to the patches, the last of which gives the mask logits.
        learner: whether the queries first attend to each other, in TagCLIP's trusty learner.
        trusty: whether there is a trusty token.
    """

    width: int = 512
    heads: int = 8
    layers: int = 3
    learner: bool = True
    trusty: bool = True


@dataclass(frozen=True)
class MaskLogits:
    """Mask logits at the resolution of the patches.

    Attributes:
        classes: (B, C, h, w).
        trusty: (B, h, w). Its sigmoid is the probability that a pixel belongs to an unseen class, as in the published
            code; the paper's M_A is one minus this probability. None without a trusty token.
    """

    classes: Tensor
    trusty: Tensor | None

    @property
    def nbytes(self) -> int:
        """Bytes of all logits in memory."""
        return self.classes.nbytes + (0 if self.trusty is None else self.trusty.nbytes)


class Decoder(nn.Module):
    """Text and patch embeddings to mask logits.

    Args:
        sizes: of the decoder.
    """

    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__()
        width, heads = sizes.width, sizes.heads
        self.descriptor = nn.Linear(2 * width, width)
        self.trusty = nn.Parameter(torch.empty(1, width)) if sizes.trusty else None
        self.learner = Learner(width, heads) if sizes.learner else None
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(sizes.layers - 1))
        self.masks = Masks(width, heads)
        self.initialise()

    def initialise(self) -> None:
        """Draw initial weights as published training does: Xavier's for all matrices and for the trusty token."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, images: ImageEmbeddings, texts: Tensor) -> MaskLogits:
        """Mask logits of C classes on B images.

        Args:
            images: patch and image embeddings of the images.
            texts: text embeddings of the classes, unit vectors (C, D).
        """
        tokens = texts if self.trusty is None else torch.cat([texts, self.trusty])
        queries = self.descriptor(relationship_descriptor(tokens, images.images))
        if self.learner is not None:
            queries = self.learner(queries)
        patches = images.patches.flatten(2).mT
        for layer in self.layers:
            queries = layer(queries, patches)
        logits = self.masks(queries, patches).unflatten(2, images.patches.shape[2:])
        return MaskLogits(logits, None) if self.trusty is None else MaskLogits(logits[:, :-1], logits[:, -1])


def relationship_descriptor(texts: Tensor, images: Tensor) -> Tensor:
    """ZegCLIP's relationship descriptor before its projection: image times text, then the text.

    Args:
        texts: text embeddings (C, D).
        images: image embeddings (B, D).

    Returns:
        (B, C, 2 D).
    """
    texts = texts.expand(len(images), -1, -1)
    return torch.cat([images[:, None] * texts, texts], 2)


class Learner(nn.Module):
    """The trusty learner: self-attention among the queries, from which the trusty token learns the vocabulary.

    Args:
        width: D.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.to_qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(DROPOUT)
        nn.init.zeros_(self.to_qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, queries: Tensor) -> Tensor:
        """Queries (B, C, D) to the same shape."""
        q, k, v = self.to_qkv(queries).unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=DROPOUT if self.training else 0.0)
        return self.norm(queries + self.dropout(self.out(attended.transpose(1, 2).flatten(2))))


class Layer(nn.Module):
    """Cross attention from queries to patches and an MLP, each followed by a norm.

    Args:
        width: D.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        """Queries (B, C, D) and patches (B, T, D) to queries (B, C, D)."""
        q, k, v = (
            layer(x).unflatten(2, (self._heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, queries), (self.key, patches), (self.value, patches))
        )
        attended = F.scaled_dot_product_attention(q, k, v, dropout_p=DROPOUT if self.training else 0.0)
        queries = self.attention_norm(queries + self.dropout(self.out(attended.transpose(1, 2).flatten(2))))
        hidden = self.dropout(F.relu(self.fc1(queries)))
        return self.mlp_norm(queries + self.dropout(self.fc2(hidden)))


class Masks(nn.Module):
    """Attention-to-mask: the attention logits of queries at patches, averaged over the heads.

    As in the published code, and unlike equation 8 of the paper, the attention logits are not multiplied with anything
    else. Their average over the heads is one product over all channels.

    Args:
        width: D.
        heads: attention heads.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._scale = (width // heads) ** -0.5 / heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        """Queries (B, C, D) and patches (B, T, D) to mask logits (B, C, T)."""
        return (self.query(queries) * self._scale) @ self.key(patches).mT
