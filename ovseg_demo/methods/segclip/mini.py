"""SegCLIP on the bundled mini model: regions that form themselves on an ImageNet classifier, taught by captions."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ovseg_demo.methods.segclip.encoder import PhotoRegions
from ovseg_demo.methods.segclip.mini_model import MiniGroupingTower
from ovseg_demo.methods.segclip.options import RegionOptions
from ovseg_demo.methods.windows import Axis, WindowLayout
from ovseg_demo.models.mini.model import MiniModel, preprocess, preprocessed_size
from ovseg_demo.proposals.base import Report
from ovseg_demo.weights.loading import load_for_inference

CHECKPOINT = "segclip-mini"

IMAGE_SIDE = 384
"""Longest side, in pixels, to which photos are resized."""

_STRIDE = 16


class MiniRegionEncoder:
    """The mini model with a grouping tower, as a `RegionEncoder` to which a photo is one window.

    Args:
        model: the mini model.
        tower: forms regions of its maps.
    """

    def __init__(self, model: MiniModel, tower: MiniGroupingTower) -> None:
        self._model, self._tower = model, tower
        self.name = f"{model.name} | {CHECKPOINT}"
        self.scale = tower.logit_scale.exp().item()

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), 384)."""
        return self._model.embed_texts(words)

    def layout(self, size: tuple[int, int], options: RegionOptions) -> WindowLayout:
        """One window over a photo of `size` (H, W) in pixels, whatever the options."""
        height, width = preprocessed_size(size, IMAGE_SIDE)
        return WindowLayout(Axis.cut(height, None, _STRIDE), Axis.cut(width, None, _STRIDE))

    @torch.inference_mode()
    def read_windows(self, image: np.ndarray, layout: WindowLayout, report: Report) -> PhotoRegions:
        """The regions of a photo, uint8 (H, W, 3), RGB, with its layout; `report` is not called."""
        *_, coarse, last = self._model.pyramid(preprocess(image, IMAGE_SIDE))
        found = self._tower(coarse, last, self._model.anchor_weights(last))
        return PhotoRegions(found.regions, found.images, found.grouping.soft.unflatten(2, found.grid), layout)


def load_encoder(model: MiniModel, device: str | torch.device) -> MiniRegionEncoder:
    """The mini model, which is shared with other methods, with the bundled grouping tower.

    Args:
        model: the mini model.
        device: where the grouping tower runs.

    Raises:
        CheckpointError: when the file is missing, damaged or does not fit.
    """
    return MiniRegionEncoder(model, load_for_inference(MiniGroupingTower(), CHECKPOINT).to(device))
