"""MROVSeg as a reader of photos, of which it gives masks and class embeddings, and of words."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import open_clip
import torch
from torch import Tensor

from ovseg_demo.methods.mrovseg.model import MROVSeg, Prediction
from ovseg_demo.methods.mrovseg.optimised import optimise_model
from ovseg_demo.methods.mrovseg.scores import PhotoQueries
from ovseg_demo.methods.mrovseg.slices import pad_to_slices
from ovseg_demo.models.base import TextEncoder
from ovseg_demo.models.clip.optimised import Precision, native_precision, optimise
from ovseg_demo.models.clip.templates import IMAGENET_TEMPLATES, VILD_TEMPLATES
from ovseg_demo.models.clip.text import CachedWordEmbeddings, mean_embeddings
from ovseg_demo.proposals.base import Report
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD, normalise_image, resize_smoothed, scaled_size

TEMPLATES = {"vild": VILD_TEMPLATES, "imagenet": IMAGENET_TEMPLATES}
"""Prompts by the names of `MROVSegSettings.templates`."""

LONGEST = 2560
"""At most so many pixels of the longer side, as in SAN's evaluation."""


class QueryReader(TextEncoder, Protocol):
    """Reads photos and words, and compares queries with words."""

    def read(self, image: np.ndarray, short_side: int, report: Report) -> PhotoQueries:
        """Masks and class embeddings of a photo.

        Args:
            image: uint8 (H, W, 3), RGB.
            short_side: pixels of the shorter side at which the photo is read.
            report: called with the share of the work that is done, in (0, 1].
        """
        ...

    def class_logits(self, embeddings: Tensor, texts: Tensor) -> Tensor:
        """Logits (Q, K + 1), void last, of class embeddings (Q, D) and text embeddings (K, D)."""
        ...


class MROVSegReader:
    """A trained MROVSeg as a `QueryReader`.

    Args:
        clip: whose text tower embeds words.
        model: on this CLIP's image tower; its layers are replaced by faster ones that compute the same function.
        name: identifies the weights; text embeddings are cached on disk under it.
        device: torch device on which the model runs.
        precision: of the linear layers; None is bfloat16 where the device computes it natively, otherwise float32. The
            text tower always computes in float32.
    """

    def __init__(
        self,
        clip: open_clip.CLIP,
        model: MROVSeg,
        name: str,
        device: str | torch.device = "cpu",
        precision: Precision | None = None,
    ) -> None:
        self._device, settings = torch.device(device), model.settings
        self.name = f"{name} | mrovseg"
        self._model = model.eval().requires_grad_(False).to(self._device)
        clip.requires_grad_(False).to(self._device)
        optimise(clip.transformer, "float32")
        optimise_model(self._model, precision or native_precision(self._device))
        self._word_embeddings = CachedWordEmbeddings(clip, name, TEMPLATES[settings.templates])

    @torch.inference_mode()
    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Text embeddings, unit vectors (len(words), D), of at least one word."""
        return mean_embeddings(self._word_embeddings(words))

    @torch.inference_mode()
    def read(self, image: np.ndarray, short_side: int, report: Report) -> PhotoQueries:
        """Masks and class embeddings of a photo, see `QueryReader.read`."""
        size = scaled_size((image.shape[0], image.shape[1]), short_side, LONGEST)
        pixels = pad_to_slices(normalise_image(resize_smoothed(image, size), CLIP_MEAN, CLIP_STD), self._model.patch)
        features = self._model.features(pixels.to(self._device))
        report(0.6)
        found = self._model.decode(features)
        report(1.0)
        return PhotoQueries(
            found.masks[0], found.embeddings[0], _mean_attention(found), size, (pixels.shape[2], pixels.shape[3])
        )

    @torch.inference_mode()
    def class_logits(self, embeddings: Tensor, texts: Tensor) -> Tensor:
        """Logits (Q, K + 1), void last, of class embeddings (Q, D) and text embeddings (K, D)."""
        return self._model.class_logits(embeddings, texts.to(embeddings))


def _mean_attention(found: Prediction) -> Tensor | None:
    """The mean of the fusion layers' scale attention, (1, h', w'); None without fusion."""
    layers = found.scale_attention[0]
    return layers.mean(0, keepdim=True) if len(layers) else None
