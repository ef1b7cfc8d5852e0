"""CLIP models (open_clip) as region classifiers: stock, adapted to masked crops, with or without mask prompts."""

import copy
from collections.abc import Mapping, Sequence

import numpy as np
import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.models.clip.optimised import Precision, native_precision, optimise
from ovseg_demo.models.clip.templates import OVSEG_DEMO_TEMPLATE
from ovseg_demo.models.clip.text import encode_shared_prefixes
from ovseg_demo.models.clip.weights import build_clip, clip_tensors
from ovseg_demo.models.region_crops import masked_crops_and_masks
from ovseg_demo.proposals.base import MaskProposals, Report
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD
from ovseg_demo.runtime.worker_pool import worker_pool
from ovseg_demo.vocabulary import verbatim_text
from ovseg_demo.weights import catalogue, loading

LOGIT_SCALE = 100.0
"""Multiplies cosine similarities, as in OVSeg; the checkpoint's own learned scale is its clamp, also 100."""

_CROPS_AT_ONCE = {"cpu": 8}  # of all workers: what a layer hands to the next is to stay in the processor's cache
_CROPS_ELSEWHERE = 64


class ClipRegionClassifier:
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
        templates: Sequence[str] = OVSEG_DEMO_TEMPLATE,
        precision: Precision | None = None,
    ) -> None:
        source = checkpoint_id
        if state is None:
            state, source = loading.load_state_dict(checkpoint_id), catalogue.get(checkpoint_id).file
        self._device = torch.device(device)
        self._source = checkpoint_id
        self._templates = tuple(templates)
        self._model = build_clip(architecture, clip_tensors(state), source)
        del state  # copied: 1.7 GB of a ViT-L/14 that the next lines need not be beside
        self._model.to(self._device)
        optimise(self._model.transformer, "float32")
        optimise(self._model.visual, precision or native_precision(self._device))
        self._tokenizer = open_clip.get_tokenizer(architecture)

    def with_templates(self, templates: Sequence[str]) -> "ClipRegionClassifier":
        """The same model, in memory once, reading words in other templates."""
        other = copy.copy(self)
        other._templates = tuple(templates)
        return other

    @property
    def name(self) -> str:
        """Names the weights and, unless they are the usual ones, the templates: words of two sets must not mix."""
        return self._source if self._templates == OVSEG_DEMO_TEMPLATE else " | ".join((self._source, *self._templates))

    @torch.inference_mode()
    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), D). Words are read verbatim, as in OVSeg; see `vocabulary.verbatim_text`."""
        texts = [template.format(verbatim_text(word)) for word in words for template in self._templates]
        embeddings = encode_shared_prefixes(self._model, self._tokenizer(texts).to(self._device))
        by_word = F.normalize(embeddings, dim=-1).unflatten(0, (-1, len(self._templates)))
        return F.normalize(by_word.mean(1), dim=-1)

    def embed_background_prompts(self, words: Sequence[str]) -> Tensor:
        """The embedding of "others" (1, D), as OVSeg's demo adds it to a one-word vocabulary."""
        return self.embed_texts(["others"])

    @torch.inference_mode()
    def embed_regions(self, image: np.ndarray, proposals: MaskProposals, report: Report) -> Tensor:
        """Unit vectors (N, D)."""
        tower = self._model.visual
        size, batch_size = tower.image_size[0], _CROPS_AT_ONCE.get(self._device.type, _CROPS_ELSEWHERE)
        embeddings = [torch.empty(0, tower.output_dim, device=self._device)]
        done = 0
        with worker_pool(self._device) as workers:
            for crops, masks in masked_crops_and_masks(
                image, proposals, size=size, mean=CLIP_MEAN, std=CLIP_STD, batch_size=batch_size
            ):
                pieces = list(zip(workers.chunks(crops), workers.chunks(masks), strict=True))
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
