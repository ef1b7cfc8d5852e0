"""SegCLIP as an encoder of photos, region by region in windows, and of words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods import windows
from ovseg_demo.methods.segclip.checkpoint import split_checkpoint
from ovseg_demo.methods.segclip.model import ARCHITECTURE, build_segclip
from ovseg_demo.methods.segclip.options import SegCLIPOptions
from ovseg_demo.methods.windows import WindowLayout
from ovseg_demo.models.base import TextEncoder
from ovseg_demo.models.clip.optimised import Precision, native_precision, optimise
from ovseg_demo.models.clip.text import CachedWordEmbeddings, mean_embeddings
from ovseg_demo.proposals.base import Report
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD, normalise_image, resize_unsmoothed
from ovseg_demo.runtime.worker_pool import worker_pool
from ovseg_demo.weights import catalogue, loading

TEMPLATES = ("a photo of a {}.",)
"""The prompt of the published evaluation."""

HIGHEST_SCALE = 100.0
"""Bound on the learned factor of cosines, as published."""

_WINDOWS_AT_ONCE = {"cpu": 16}
_WINDOWS_ELSEWHERE = 256


@dataclass(frozen=True)
class PhotoRegions:
    """The R regions of each of N windows of a photo.

    Attributes:
        regions: unit vectors of the regions, float32 (N, R, D).
        windows: unit vectors of the whole windows, float32 (N, D).
        soft: the probability that a patch belongs to a region, float32 (N, R, h, w).
        layout: of the windows.
    """

    regions: Tensor
    windows: Tensor
    soft: Tensor
    layout: WindowLayout

    @property
    def nbytes(self) -> int:
        return self.regions.nbytes + self.windows.nbytes + self.soft.nbytes


class RegionEncoder(TextEncoder, Protocol):
    """Forms the regions of photos, in one or more windows, and embeds words."""

    @property
    def scale(self) -> float:
        """The factor of cosines before a softmax over words."""
        ...

    def layout(self, size: tuple[int, int], options: Any) -> WindowLayout:
        """The windows of a photo of `size` (H, W) in pixels; `options` are those of the method."""
        ...

    def read_windows(self, image: np.ndarray, layout: WindowLayout, report: Report) -> PhotoRegions:
        """The regions of a photo's windows.

        Args:
            image: uint8 (H, W, 3), RGB.
            layout: of its windows, from the method of this name.
            report: called with the share of the windows that are done, in (0, 1].
        """
        ...


class SegCLIPEncoder:
    """A SegCLIP as a `RegionEncoder`.

    Args:
        state: the content of a file, as `split_checkpoint` takes it.
        name: names the weights; text embeddings are cached on disk under it.
        device: torch device on which the model runs.
        source: where the weights are from, for messages.
        precision: of the linear layers of the image tower's blocks; None is bfloat16 where the device computes it
            natively, otherwise float32. All else always computes in float32.
        architecture: open_clip model name.

    Attributes:
        scale: the factor of cosines before a softmax over words.

    Raises CheckpointError when the weights do not fit.
    """

    def __init__(
        self,
        state: Mapping,
        name: str,
        device: str | torch.device = "cpu",
        *,
        source: str,
        precision: Precision | None = None,
        architecture: str = ARCHITECTURE,
    ) -> None:
        self.name = f"{name} | segclip"
        self._device = torch.device(device)
        self._model, self._tower = build_segclip(split_checkpoint(state, source).clip, source, architecture)
        self._model.to(self._device).requires_grad_(False)
        optimise(self._model.transformer, "float32")
        optimise(self._tower.transformer, precision or native_precision(self._device))
        self.scale = min(self._model.logit_scale.exp().item(), HIGHEST_SCALE)
        self._word_embeddings = CachedWordEmbeddings(self._model, name, TEMPLATES)

    @property
    def patch(self) -> int:
        """Pixels a side of a patch."""
        return self._tower.patch_size[0]

    def layout(self, size: tuple[int, int], options: SegCLIPOptions) -> WindowLayout:
        """The windows of a photo of `size` (H, W) in pixels, which overlap as the options say."""
        stride = max(1, round(windows.WINDOW * (1 - options.overlap)))
        return WindowLayout.of(size, windows.WINDOW, stride, self.patch)

    @torch.inference_mode()
    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Text embeddings, unit vectors (len(words), D), of at least one word."""
        return mean_embeddings(self._word_embeddings(words))

    @torch.inference_mode()
    def read_windows(self, image: np.ndarray, layout: WindowLayout, report: Report) -> PhotoRegions:
        """The regions of a photo's windows, as many windows at once as memory allows.

        Args:
            image: uint8 (H, W, 3), RGB.
            layout: of its windows.
            report: called with the share of the windows that are done, in (0, 1].
        """
        resized = normalise_image(resize_unsmoothed(image, layout.size), CLIP_MEAN, CLIP_STD)[0]
        parts = torch.stack(list(layout.cut(resized)))
        found, done = [], 0
        with worker_pool(self._device) as workers:
            for batch in parts.split(_WINDOWS_AT_ONCE.get(self._device.type, _WINDOWS_ELSEWHERE)):
                found += workers.map(self._read, workers.chunks(batch))
                done += len(batch)
                report(done / len(parts))
        regions, whole, soft = (torch.cat(each) for each in zip(*found, strict=True))
        return PhotoRegions(regions, whole, soft, layout)

    def _read(self, windows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Regions (N, R, D), whole windows (N, D) and soft assignment (N, R, h, w) of windows (N, 3, h', w')."""
        found = self._tower(windows.to(self._device))
        soft = found.grouping.soft.unflatten(2, found.grid)
        return F.normalize(found.regions, dim=-1), F.normalize(found.images, dim=-1), soft


def load_encoder(checkpoint_id: str, device: str, architecture: str = ARCHITECTURE) -> SegCLIPEncoder:
    """The encoder with catalogued weights.

    Args:
        checkpoint_id: catalogue id of a file of SegCLIP.
        device: where the model runs.
        architecture: open_clip model name.

    Raises CheckpointError when the weights are missing, damaged or do not fit.
    """
    entry, state = catalogue.get(checkpoint_id), loading.load_state_dict(checkpoint_id)
    weights = f"{checkpoint_id} {catalogue.sha256_of(entry.path)}"
    return SegCLIPEncoder(state, weights, device, source=entry.file, architecture=architecture)
