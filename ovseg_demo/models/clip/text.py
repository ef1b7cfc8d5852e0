"""Texts that begin alike, read together: the prompts of many words, or many prompts of one.

In CLIP's text tower a token attends only to those before it, so what is read at a token follows from the beginning of
the text that it ends. Texts are read as the tree of their beginnings, each once, where a token attends to those on its
way from the root. SED's 80 prompts of four words have 2,900 tokens, but 1,300 distinct beginnings.
"""

import open_clip
import torch
from torch import Tensor

_TEXTS_AT_ONCE = 64


def encode_shared_prefixes(clip: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Embeddings (B, D), not normalised, of tokenised texts (B, 77): what `clip.encode_text` computes, with less work.

    A text's embedding depends on the others by rounding only.
    """
    distinct, which = tokens.unique(dim=0, return_inverse=True)  # sorted, so that alike beginnings are neighbours
    return torch.cat([_encode_batch(clip, some) for some in distinct.split(_TEXTS_AT_ONCE)])[which]


def _encode_batch(clip: open_clip.CLIP, tokens: Tensor) -> Tensor:
    ends = tokens.argmax(1)  # the token that ends a text has the highest number of all
    tokens = tokens[:, : ends.max() + 1]
    length = tokens.shape[1]
    nodes = _prefix_nodes(tokens, ends)
    within = nodes >= 0
    embedded = clip.token_embedding(tokens) + clip.positional_embedding[:length]
    x = embedded.new_empty(int(nodes.max()) + 1, embedded.shape[2])
    x[nodes[within]] = embedded[within]
    text, at, before = (within[:, :, None] & within.new_ones(length, length).tril()).nonzero(as_tuple=True)
    mask = x.new_full((len(x), len(x)), -torch.inf)
    mask[nodes[text, at], nodes[text, before]] = 0
    x = clip.transformer(x[None], attn_mask=mask)[0]
    return clip.ln_final(x[nodes.gather(1, ends[:, None])[:, 0]]) @ clip.text_projection


def _prefix_nodes(tokens: Tensor, ends: Tensor) -> Tensor:
    """The beginning that each token (B, L) ends, int64 (B, L): distinct ones count from 0; -1 after a text's end."""
    nodes, parents, count = torch.full_like(tokens, -1), torch.zeros_like(ends), 0
    for depth, column in enumerate(tokens.T):
        within = ends >= depth
        _, index = torch.stack([parents, column], 1)[within].unique(dim=0, return_inverse=True)
        nodes[within, depth] = parents[within] = index + count
        count += int(index.max()) + 1
    return nodes


def encode_texts(clip: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Embeddings (B, D), not normalised, of tokenised texts (B, 77).

    What `clip.encode_text` computes, from no more tokens than the longest text has: attention is causal, so what
    comes after the end of a text does not change what is read there.
    """
    ends = tokens.argmax(1)  # the token that ends a text has the highest number of all
    tokens = tokens[:, : ends.max() + 1]
    length = tokens.shape[1]
    x = clip.token_embedding(tokens) + clip.positional_embedding[:length]
    x = clip.transformer(x, attn_mask=clip.attn_mask[:length, :length])
    return clip.ln_final(x[torch.arange(len(x), device=x.device), ends]) @ clip.text_projection
