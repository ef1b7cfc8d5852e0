"""CLIP models (open_clip) as region classifiers: stock, adapted to masked crops, with or without mask prompts."""

import copy
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.models.base import UNCALIBRATED
from ovseg_demo.models.clip.mask_prompts import MaskPromptedTower
from ovseg_demo.models.clip.optimised import Precision, native_precision, optimise
from ovseg_demo.models.clip.templates import OVSEG_DEMO_TEMPLATE
from ovseg_demo.models.clip.text import embed_words, mean_embeddings
from ovseg_demo.models.clip.weights import build_clip, clip_tensors
from ovseg_demo.models.region_crops import masked_crops_and_masks
from ovseg_demo.proposals.base import MaskProposals, Report
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD
from ovseg_demo.runtime.worker_pool import worker_pool
from ovseg_demo.weights import catalogue, loading

LOGIT_SCALE = 100.0
"""Multiplies cosine similarities, as in OVSeg; the learned scale of the released weights is at its bound, also 100."""

_CROPS_AT_ONCE = {"cpu": 8}  # of all workers together, so that activations stay in the processor's cache
_CROPS_ELSEWHERE = 64


class ClipRegionClassifier:
    """A CLIP of open_clip as a `base.VisionLanguageModel`, with mask prompts if the weights have them.

    Args:
        architecture: open_clip model name. OpenAI's and OVSeg's weights need a "-quickgelu" one: they were trained
            with x * sigmoid(1.702 x), which the plain names replace by the exact GELU.
        checkpoint_id: names the weights: an id of the catalogue, or anything when `state` is given.
        device: torch device on which the model runs.
        state: the weights, as `clip_state_dict` takes them; None reads them from the catalogued file.
        templates: texts with a {} for the word. The embedding of a word is the direction of the mean of the unit
            vectors of its texts.
        precision: of the image tower's linear layers; None is bfloat16 where the device computes it natively,
            otherwise float32. The text tower always computes in float32.

    Raises CheckpointError when the weights are missing, damaged or do not fit.
    """

    calibration = UNCALIBRATED

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
        del state  # the model has copies, and a ViT-L/14 takes 1.7 GB
        self._model.to(self._device)
        optimise(self._model.transformer, "float32")
        optimise(self._model.visual, precision or native_precision(self._device))

    def with_templates(self, templates: Sequence[str]) -> "ClipRegionClassifier":
        """The same model with other templates; both share the weights in memory."""
        other = copy.copy(self)
        other._templates = tuple(templates)
        return other

    @property
    def name(self) -> str:
        """Identifies weights and templates in the keys of caches; the default templates are left out."""
        return self._source if self._templates == OVSEG_DEMO_TEMPLATE else " | ".join((self._source, *self._templates))

    @torch.inference_mode()
    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Text embeddings, unit vectors (len(words), D), of at least one word, verbatim, as in OVSeg."""
        return mean_embeddings(embed_words(self._model, words, self._templates))

    @torch.inference_mode()
    def embed_regions(self, image: np.ndarray, proposals: MaskProposals, report: Report) -> Tensor:
        """Region embeddings, unit vectors (N, D), of masked crops; see `base.VisionLanguageModel`."""
        tower = cast(MaskPromptedTower, self._model.visual)
        size, batch_size = tower.image_size[0], _CROPS_AT_ONCE.get(self._device.type, _CROPS_ELSEWHERE)
        embeddings = [torch.empty(0, tower.output_dim, device=self._device)]
        done = 0
        with worker_pool(self._device) as workers:
            for crops, masks in masked_crops_and_masks(
                image, proposals, size=size, mean=CLIP_MEAN, std=CLIP_STD, batch_size=batch_size
            ):
                chunks = list(zip(workers.chunks(crops), workers.chunks(masks), strict=True))
                embeddings += workers.map(self._embed_crops, chunks)
                done += len(crops)
                report(done / len(proposals))
        return torch.cat(embeddings)

    def _embed_crops(self, crops_and_masks: tuple[Tensor, Tensor]) -> Tensor:
        """Unit vectors (B, D) of crops (B, 3, S, S) and their masks (B, S, S)."""
        crops, masks = (tensor.to(self._device) for tensor in crops_and_masks)
        tower = cast(MaskPromptedTower, self._model.visual)
        return F.normalize(tower(crops) if tower.mask_embedding is None else tower(crops, masks), dim=-1)

    def logits(self, regions: Tensor, texts: Tensor) -> Tensor:
        """Cosine similarities times LOGIT_SCALE, (N, K), of unit vectors `regions` (N, D) and `texts` (K, D)."""
        return LOGIT_SCALE * regions @ texts.T
