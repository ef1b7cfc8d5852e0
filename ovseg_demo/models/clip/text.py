"""From words to text embeddings of CLIP.

Texts with equal beginnings, such as many words in one prompt or one word in many prompts, share work: in CLIP's text
tower a token attends only to the tokens before it, so its state depends only on the prefix of the text that ends with
it. A batch of texts is encoded as the tree of its prefixes, each prefix once, where a token attends to the tokens on
its path from the root. SED's 80 prompts of four words have 2,900 tokens, but 1,300 distinct prefixes.
"""

from collections.abc import Sequence
from typing import Protocol, cast

import open_clip
import torch
from open_clip.transformer import Transformer
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models.text_cache import TextEmbeddingCache
from ovseg_demo.vocabulary import verbatim_text

_TEXTS_AT_ONCE = 64


class _TextTower(Protocol):
    """The parts of `open_clip.CLIP` that encode texts; open_clip does not declare their types."""

    token_embedding: nn.Embedding
    positional_embedding: Tensor
    transformer: Transformer
    ln_final: nn.LayerNorm
    text_projection: Tensor
    attn_mask: Tensor


@torch.no_grad()
def embed_words(clip: open_clip.CLIP, words: Sequence[str], templates: Sequence[str]) -> Tensor:
    """Text embeddings of words in every prompt.

    Args:
        clip: on any device.
        words: at least one. They enter the prompts verbatim, as in the published systems; see
            `vocabulary.verbatim_text`.
        templates: P texts with a {} for the word.

    Returns:
        Unit vectors, float32 (len(words), P, D), on the CLIP's device.
    """
    texts = [template.format(verbatim_text(word)) for word in words for template in templates]
    tokens = open_clip.tokenize(texts).to(cast(_TextTower, clip).text_projection.device)
    return F.normalize(encode_shared_prefixes(clip, tokens), dim=-1).unflatten(0, (-1, len(templates)))


class CachedWordEmbeddings:
    """Text embeddings of words in every prompt; a word that was embedded before comes from the disk.

    Args:
        clip: on any device.
        name: names the weights, unique to them.
        templates: P texts with a {} for the word.
    """

    def __init__(self, clip: open_clip.CLIP, name: str, templates: Sequence[str]) -> None:
        self._clip, self._templates = clip, templates
        self._cache = TextEmbeddingCache(name, templates)

    def __call__(self, words: Sequence[str]) -> Tensor:
        """Unit vectors, float32 (len(words), P, D), of at least one word, on the CLIP's device."""
        found = self._cache.get_or_compute(words, lambda missing: embed_words(self._clip, missing, self._templates))
        return found.to(cast(_TextTower, self._clip).text_projection.device)


def mean_embeddings(by_prompt: Tensor) -> Tensor:
    """One text embedding for each word: the mean direction of its embeddings in all prompts.

    Args:
        by_prompt: unit vectors (K, P, D) of K words in P prompts.

    Returns:
        Unit vectors (K, D).
    """
    return F.normalize(by_prompt.mean(1), dim=-1)


def encode_shared_prefixes(clip: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Embeddings (B, D), not normalised, of tokenised texts (B, 77): what `clip.encode_text` computes, with less work.

    The embedding of a text depends on the other texts of the batch by rounding only.
    """
    # Sorted, so that texts with equal prefixes come into the same batch.
    distinct, inverse = tokens.unique(dim=0, return_inverse=True)
    return torch.cat([_encode_batch(cast(_TextTower, clip), batch) for batch in distinct.split(_TEXTS_AT_ONCE)])[
        inverse
    ]


def _encode_batch(tower: _TextTower, tokens: Tensor) -> Tensor:
    ends = tokens.argmax(1)  # the end-of-text token has the highest id
    tokens = tokens[:, : ends.max() + 1]
    length = tokens.shape[1]
    prefixes = _prefix_indices(tokens, ends)
    within = prefixes >= 0
    embedded = tower.token_embedding(tokens) + tower.positional_embedding[:length]
    x = embedded.new_empty(int(prefixes.max()) + 1, embedded.shape[2])
    x[prefixes[within]] = embedded[within]
    # Each token attends to the tokens of its own text up to itself.
    text, query, key = (within[:, :, None] & within.new_ones(length, length).tril()).nonzero(as_tuple=True)
    mask = x.new_full((len(x), len(x)), -torch.inf)
    mask[prefixes[text, query], prefixes[text, key]] = 0
    x = tower.transformer(x[None], attn_mask=mask)[0]
    return tower.ln_final(x[prefixes.gather(1, ends[:, None])[:, 0]]) @ tower.text_projection


def _prefix_indices(tokens: Tensor, ends: Tensor) -> Tensor:
    """For each token (B, L) the index of the prefix that ends with it, int64 (B, L).

    Distinct prefixes are numbered from 0; tokens after the end of a text, at `ends` (B,), have -1.
    """
    indices, parents, count = torch.full_like(tokens, -1), torch.zeros_like(ends), 0
    for depth, column in enumerate(tokens.T):
        within = ends >= depth
        _, index = torch.stack([parents, column], 1)[within].unique(dim=0, return_inverse=True)
        indices[within, depth] = parents[within] = index + count
        count += int(index.max()) + 1
    return indices


def encode_texts(clip: open_clip.CLIP, tokens: Tensor) -> Tensor:
    """Embeddings (B, D), not normalised, of tokenised texts (B, 77): what `clip.encode_text` computes; differentiable.

    The texts are cut to the longest of them: attention is causal, so the tokens after the end of a text do not change
    its embedding.
    """
    tower = cast(_TextTower, clip)
    ends = tokens.argmax(1)  # the end-of-text token has the highest id
    tokens = tokens[:, : ends.max() + 1]
    length = tokens.shape[1]
    x = tower.token_embedding(tokens) + tower.positional_embedding[:length]
    x = tower.transformer(x, attn_mask=tower.attn_mask[:length, :length])
    return tower.ln_final(x[torch.arange(len(x), device=x.device), ends]) @ tower.text_projection
