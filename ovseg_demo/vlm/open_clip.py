"""CLIP models (open_clip) as region classifiers: stock, adapted to masked crops, with or without mask prompts."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo import checkpoints
from ovseg_demo.crew import crew
from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals.base import MaskProposals, Report
from ovseg_demo.vlm.clip_inference import InferenceTower, Precision, native_precision, replace_blocks
from ovseg_demo.vlm.mask_prompts import DEPTH, MaskPromptedTower
from ovseg_demo.vlm.regions import masked_regions
from ovseg_demo.vlm.text_tree import encode_in_batches
from ovseg_demo.vocabulary import readable

LOGIT_SCALE = 100.0
"""Multiplies cosine similarities, as in OVSeg; the checkpoint's own learned scale is its clamp, also 100."""

SINGLE = ("a photo of {}",)
"""The prompt of OVSeg's public demo: no article, no full stop."""

VILD = (
    "a photo of a {}.",
    "This is a photo of a {}",
    "There is a {} in the scene",
    "There is the {} in the scene",
    "a photo of a {} in the scene",
    "a photo of a small {}.",
    "a photo of a medium {}.",
    "a photo of a large {}.",
    "This is a photo of a small {}.",
    "This is a photo of a medium {}.",
    "This is a photo of a large {}.",
    "There is a small {} in the scene.",
    "There is a medium {} in the scene.",
    "There is a large {} in the scene.",
)
"""The prompts of ViLD (Gu et al. 2022) by which OVSeg is trained and evaluated."""

MEAN = tuple(255 * m for m in (0.48145466, 0.4578275, 0.40821073))
STD = tuple(255 * s for s in (0.26862954, 0.26130258, 0.27577711))
"""CLIP's normalisation of RGB values from 0 to 255."""

PROMPTS = "visual.mask_embedding"
"""The tensor that weights with mask prompts have beside those of a stock CLIP."""

_IN_OVSEG = "clip_adapter.clip_model."
_ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size")
_CROPS_AT_ONCE = {"cpu": 8}  # of all workers: what a layer hands to the next is to stay in the processor's cache
_CROPS_ELSEWHERE = 64


class OpenClipVLM:
    """A CLIP of open_clip. Weights with mask prompts use them.

    Args:
        architecture: open_clip model name. OpenAI's and OVSeg's weights need a "-quickgelu" one: they were trained
            with x * sigmoid(1.702 x), which the plain names replace by the exact GELU.
        checkpoint_id: catalogue id of its weights.
        device: where it runs.
        state: the weights, as `clip_state_dict` takes them; None reads them from the catalogued file.
        templates: texts with a {} for the word. A word's embedding is the mean of the unit vectors of its texts.
        precision: of the image tower's linear layers; None is bfloat16 where the device computes it natively,
            otherwise float32. Words are always read in float32.

    Raises CheckpointError when the weights are missing, damaged or do not fit.
    """

    def __init__(
        self,
        architecture: str,
        checkpoint_id: str,
        device: str | torch.device = "cpu",
        *,
        state: Mapping | None = None,
        templates: Sequence[str] = SINGLE,
        precision: Precision | None = None,
    ) -> None:
        source = checkpoint_id
        if state is None:
            state, source = checkpoints.load_state_dict(checkpoint_id), checkpoints.get(checkpoint_id).file
        self._device = torch.device(device)
        self._source = checkpoint_id
        self._templates = tuple(templates)
        self._model = build(architecture, _tensors(state), source)
        del state  # copied: 1.7 GB of a ViT-L/14 that the next lines need not be beside
        self._model.to(self._device)
        replace_blocks(self._model.transformer.resblocks, "float32")
        self._model.visual = InferenceTower(self._model.visual, precision or native_precision(self._device))
        self._tokenizer = open_clip.get_tokenizer(architecture)

    def with_templates(self, templates: Sequence[str]) -> "OpenClipVLM":
        """The same model, in memory once, reading words in other templates."""
        other = copy.copy(self)
        other._templates = tuple(templates)
        return other

    @property
    def name(self) -> str:
        """Names the weights and, unless they are the usual ones, the templates: words of two sets must not mix."""
        return self._source if self._templates == SINGLE else " | ".join((self._source, *self._templates))

    @torch.inference_mode()
    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), D)."""
        texts = [template.format(readable(word)) for word in words for template in self._templates]
        embeddings = encode_in_batches(self._model, self._tokenizer(texts).to(self._device))
        by_word = F.normalize(embeddings, dim=-1).unflatten(0, (-1, len(self._templates)))
        return F.normalize(by_word.mean(1), dim=-1)

    def embed_rival(self, words: Sequence[str]) -> Tensor:
        """The embedding of "others" (1, D), as OVSeg's demo adds it to a one-word vocabulary."""
        return self.embed_texts(["others"])

    @torch.inference_mode()
    def embed_regions(self, image: np.ndarray, proposals: MaskProposals, report: Report) -> Tensor:
        """Unit vectors (N, D)."""
        tower = self._model.visual
        size, batch_size = tower.image_size[0], _CROPS_AT_ONCE.get(self._device.type, _CROPS_ELSEWHERE)
        embeddings = [torch.empty(0, tower.output_dim, device=self._device)]
        done = 0
        with crew(self._device) as workers:
            for crops, masks in masked_regions(image, proposals, size=size, mean=MEAN, std=STD, batch_size=batch_size):
                pieces = list(zip(workers.pieces(crops), workers.pieces(masks), strict=True))
                embeddings += workers.map(self._embedded, pieces)
                done += len(crops)
                report(done / len(proposals))
        return torch.cat(embeddings)

    def _embedded(self, piece: tuple[Tensor, Tensor]) -> Tensor:
        """Unit vectors (B, D) of some crops and their masks."""
        crops, masks = (each.to(self._device) for each in piece)
        tower = self._model.visual
        return F.normalize(tower(crops) if tower.mask_embedding is None else tower(crops, masks), dim=-1)

    def logits(self, regions: Tensor, texts: Tensor) -> Tensor:
        """Scaled cosine similarities (N, K)."""
        return LOGIT_SCALE * regions @ texts.T


def build(architecture: str, state: Mapping[str, Tensor], source: str) -> open_clip.CLIP:
    """A CLIP with the weights of `state`, float32, in evaluation mode; its image tower is a `MaskPromptedTower`.

    Args:
        architecture: open_clip model name.
        state: tensors of any precision under OpenAI's names, with PROMPTS where the weights have mask prompts.
        source: where they are from, for the message.

    Raises CheckpointError that names missing, extra and misshapen tensors.
    """
    with torch.device("meta"):  # no time for random numbers that are overwritten
        clip = open_clip.CLIP(**open_clip.get_model_config(architecture))
        prompts = torch.empty(_prompts_shape(state[PROMPTS], clip.visual)) if PROMPTS in state else None
        clip.visual = MaskPromptedTower(clip.visual, prompts)
    return filled(clip, state, source)


def filled(clip: open_clip.CLIP, state: Mapping[str, Tensor], source: str) -> open_clip.CLIP:
    """A CLIP that was made on the meta device, with the weights of `state`, in evaluation mode.

    Raises CheckpointError that names missing, extra and misshapen tensors.
    """
    clip.to_empty(device="cpu")
    clip.attn_mask = torch.full((clip.context_length,) * 2, -torch.inf).triu(1)  # no file has it
    checkpoints.load_strict(clip, state, source)
    return clip.eval()


def clip_state_dict(published: Mapping) -> dict[str, Tensor]:
    """The tensors of a CLIP file under OpenAI's names, float32.

    Accepts OpenAI's and open_clip's files (which share their names), training checkpoints with the weights under
    "state_dict", a leading "module." of data-parallel training, and OVSeg's whole models, whose CLIP is taken out.
    Raises CheckpointError for anything else.
    """
    return {name: value.float() for name, value in _tensors(published).items()}


def _tensors(published: Mapping) -> dict[str, Tensor]:
    """As `clip_state_dict`, in the precision of the file."""
    state = None
    if isinstance(published, Mapping):
        state = published.get("state_dict", published.get("model", published))
    if not state or not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError("This file holds no CLIP weights: expected a table of tensors.")
    named = {name.removeprefix("module."): value for name, value in state.items()}
    inside = {name.removeprefix(_IN_OVSEG): value for name, value in named.items() if name.startswith(_IN_OVSEG)}
    named = inside or named
    return {name: value for name, value in named.items() if name not in _ARCHIVE_EXTRAS}


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


def _prompts_shape(given: Tensor, visual: torch.nn.Module) -> tuple[int, int, int]:
    """The shape that prompts must have: the depth is theirs to choose, and whether one token serves all patches."""
    tokens, width = visual.positional_embedding.shape
    depth, places = given.shape[:2] if given.ndim == 3 else (DEPTH, tokens - 1)
    return depth, 1 if places == 1 else tokens - 1, width
