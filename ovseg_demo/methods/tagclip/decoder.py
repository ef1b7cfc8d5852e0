"""TagCLIP's decoder: texts ask, patches answer, and what a text attends to is its mask.

A relationship descriptor joins every class's text embedding with that of the whole image; the trusty token, learned and
put among the texts, asks for what belongs to classes that training has not shown. Three decoder layers let the texts
look at the patches; the mask logits are the attention logits of the last one (attention-to-mask, SegViT, Zhang et al.
2022). Without the trusty token and its learner this is ZegCLIP (Zhou et al., CVPR 2023).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.tagclip.prompted_tower import DROPOUT, EncodedWindows


@dataclass(frozen=True)
class DecoderSizes:
    """What a decoder is made of.

    Attributes:
        width: of texts and patches.
        heads: of attention.
        layers: that look at the patches, the last of which makes the masks.
        learner: whether the texts first attend to each other, TagCLIP's trusty learner.
        trusty: whether there is a trusty token.
    """

    width: int = 512
    heads: int = 8
    layers: int = 3
    learner: bool = True
    trusty: bool = True


@dataclass(frozen=True)
class MaskLogits:
    """Logits of masks at the resolution of the patches.

    Attributes:
        classes: (B, C, h, w).
        trusty: (B, h, w), whose sigmoid is the probability that a place belongs to an unseen class, as in the published
            code; the paper's M_A is one minus that. None without a trusty token.
    """

    classes: Tensor
    trusty: Tensor | None

    @property
    def nbytes(self) -> int:
        return self.classes.nbytes + (0 if self.trusty is None else self.trusty.nbytes)


class Decoder(nn.Module):
    """Texts and patches to mask logits."""

    def __init__(self, sizes: DecoderSizes) -> None:
        super().__init__()
        width, heads = sizes.width, sizes.heads
        self.descriptor = nn.Linear(2 * width, width)
        self.trusty = nn.Parameter(torch.empty(1, width)) if sizes.trusty else None
        self.learner = Learner(width, heads) if sizes.learner else None
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(sizes.layers - 1))
        self.masks = Masks(width, heads)
        self.start()

    def start(self) -> None:
        """Fresh weights, as published training begins with: Xavier's for all matrices, the trusty token being one."""
        for parameter in self.parameters():
            if parameter.ndim > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(self, encoded: EncodedWindows, texts: Tensor) -> MaskLogits:
        """Masks of classes with the text embeddings `texts`, unit vectors (C, D)."""
        asked = texts if self.trusty is None else torch.cat([texts, self.trusty])
        queries = self.descriptor(relationship_descriptor(asked, encoded.images))
        if self.learner is not None:
            queries = self.learner(queries)
        patches = encoded.patches.flatten(2).mT
        for layer in self.layers:
            queries = layer(queries, patches)
        logits = self.masks(queries, patches).unflatten(2, encoded.patches.shape[2:])
        return MaskLogits(logits, None) if self.trusty is None else MaskLogits(logits[:, :-1], logits[:, -1])


def relationship_descriptor(texts: Tensor, images: Tensor) -> Tensor:
    """ZegCLIP's relationship descriptor before its projection, (B, C, 2 D): image times text, then the text itself.

    Args:
        texts: (C, D).
        images: (B, D).
    """
    texts = texts.expand(len(images), -1, -1)
    return torch.cat([images[:, None] * texts, texts], 2)


class Learner(nn.Module):
    """The trusty learner: queries (B, C, D) attend to each other, so that the trusty token knows what is asked."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.to_qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(DROPOUT)
        nn.init.zeros_(self.to_qkv.bias)
        nn.init.zeros_(self.out.bias)

    def forward(self, queries: Tensor) -> Tensor:
        q, k, v = self.to_qkv(queries).unflatten(2, (3, self._heads, -1)).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=DROPOUT if self.training else 0.0)
        return self.norm(queries + self.dropout(self.out(mixed.transpose(1, 2).flatten(2))))


class Layer(nn.Module):
    """Queries (B, C, D) look at patches (B, T, D): attention and a perceptron, each followed by a norm."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.dropout = nn.Dropout(DROPOUT)

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        q, k, v = (
            layer(x).unflatten(2, (self._heads, -1)).transpose(1, 2)
            for layer, x in ((self.query, queries), (self.key, patches), (self.value, patches))
        )
        seen = F.scaled_dot_product_attention(q, k, v, dropout_p=DROPOUT if self.training else 0.0)
        queries = self.attention_norm(queries + self.dropout(self.out(seen.transpose(1, 2).flatten(2))))
        wide = self.dropout(F.relu(self.fc1(queries)))
        return self.mlp_norm(queries + self.dropout(self.fc2(wide)))


class Masks(nn.Module):
    """Queries (B, C, D) and patches (B, T, D) to mask logits (B, C, T).

    They are the logits of attention, before its softmax, averaged over the heads: as published, and unlike equation 8
    of the paper, not multiplied with anything else. Averaged over heads they are one product of all channels.
    """

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self._scale = (width // heads) ** -0.5 / heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, queries: Tensor, patches: Tensor) -> Tensor:
        return (self.query(queries) * self._scale) @ self.key(patches).mT
