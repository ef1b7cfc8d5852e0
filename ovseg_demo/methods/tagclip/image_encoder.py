"""CLIP with deep prompts, for inference: from photos to embeddings of windows, from words to text embeddings."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.tagclip.prompted_tower import PromptedTower
from ovseg_demo.methods.tagclip.training_info import TEMPLATES, Templates
from ovseg_demo.methods.tagclip.windows import ImageEmbeddings, WindowedPhoto, window_origins
from ovseg_demo.models.clip.optimised import Precision, native_precision, optimise
from ovseg_demo.models.clip.text import CachedWordEmbeddings, mean_embeddings
from ovseg_demo.models.clip.weights import load_clip_weights, vision_transformer
from ovseg_demo.proposals.base import Report
from ovseg_demo.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise_image, resize_unsmoothed

STRIDE_SHARE = 426 / 512
"""Distance from the origin of a window to that of the next, as a share of the window's side (512 by 426 published)."""

_LONGEST_RATIO = 16
"""Photos narrower than 1 : 16 are stretched to 1 : 16, which bounds the number of windows."""

_HEAD_WIDTH = 64
_WINDOWS_AT_ONCE = {"cpu": 1}
"""Windows of a batch, by type of device; on other devices than a CPU `_WINDOWS_ELSEWHERE`."""
_WINDOWS_ELSEWHERE = 8


class ClipWindowEncoder:
    """The CLIP of TagCLIP and ZegCLIP as a `windows.WindowEncoder`.

    Args:
        state: tensors under open_clip's names; the names of the image tower are those of `PromptedTower`.
        name: identifies the weights; text embeddings are cached on disk under it.
        templates: the name of the prompt templates, a key of `training_info.TEMPLATES`.
        device: torch device on which the model runs.
        source: where the weights are from, for messages.
        precision: of the image tower's linear layers; None is bfloat16 where the device computes it natively,
            otherwise float32. The text tower always computes in float32.

    Raises CheckpointError when the weights do not fit.
    """

    def __init__(
        self,
        state: Mapping[str, Tensor],
        name: str,
        templates: Templates,
        device: str | torch.device = "cpu",
        *,
        source: str,
        precision: Precision | None = None,
    ) -> None:
        self.name = f"{name} | {templates}"
        self._device = torch.device(device)
        self.slow_text_encoder = len(TEMPLATES[templates]) > 1
        self._model = build_prompted_clip(state, source)
        optimise(self._model.transformer, "float32")
        optimise(self._model.visual, precision or native_precision(self._device))
        self._model.to(self._device)
        self._side = cast(PromptedTower, self._model.visual).image_size[0]
        self._word_embeddings = CachedWordEmbeddings(self._model, self.name, TEMPLATES[templates])

    @torch.inference_mode()
    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Text embeddings, unit vectors (len(words), D), of at least one word."""
        return mean_embeddings(self._word_embeddings(words))

    @torch.inference_mode()
    def embed_image(self, image: np.ndarray, report: Report) -> WindowedPhoto:
        """The windows of a photo, embedded. The photo is resized so that its shorter side is the side of a window.

        Args:
            image: uint8 (H, W, 3), RGB.
            report: called with the share of the windows that are done, in (0, 1].
        """
        pixels, side = self._preprocess(image), self._side
        origins = window_origins((pixels.shape[1], pixels.shape[2]), side, round(side * STRIDE_SHARE))
        windows = torch.stack([pixels[:, top : top + side, left : left + side] for top, left in origins])
        embeddings, done = [], 0
        for batch in windows.split(_WINDOWS_AT_ONCE.get(self._device.type, _WINDOWS_ELSEWHERE)):
            embeddings.append(self._model.visual(batch.to(self._device)))
            done += len(batch)
            report(done / len(windows))
        patches, images = (torch.cat([getattr(batch, name) for batch in embeddings]) for name in ("patches", "images"))
        return WindowedPhoto((side, side), origins, ImageEmbeddings(patches, images))

    def _preprocess(self, image: np.ndarray) -> Tensor:
        """Normalised pixels, float32 (3, H', W'), of a photo whose shorter side is resized to a window's."""
        scale = self._side / min(image.shape[:2])
        longest = self._side * _LONGEST_RATIO
        height, width = (min(longest, int(length * scale + 0.5)) for length in image.shape[:2])
        # Training resizes by mmsegmentation's rule, and normalises by ImageNet's constants instead of CLIP's own.
        return normalise_image(resize_unsmoothed(image, (height, width)), IMAGENET_MEAN, IMAGENET_STD)[0]


def build_prompted_clip(state: Mapping[str, Tensor], source: str) -> open_clip.CLIP:
    """A CLIP with a `PromptedTower`, float32, in evaluation mode; its sizes follow from the shapes of the tensors.

    Args:
        state: tensors under open_clip's names, without a logit scale.
        source: where the tensors are from, for the message.

    Raises CheckpointError that names missing, extra and misshapen tensors.
    """
    try:
        width, _, patch, _ = state["visual.conv1.weight"].shape
        side = patch * math.isqrt(len(state["visual.positional_embedding"]) - 1)
        image = CLIPVisionCfg(_depth(state, "visual."), width, _HEAD_WIDTH, patch_size=patch, image_size=side)
        length, text_width = state["positional_embedding"].shape
        words, dimensions = len(state["token_embedding.weight"]), state["text_projection"].shape[1]
        heads = text_width // _HEAD_WIDTH
        text = CLIPTextCfg(length, words, width=text_width, heads=heads, layers=_depth(state, ""))
        prompts = state["visual.prompt_embeddings"].shape[1]
    except (KeyError, ValueError, IndexError, TypeError) as error:
        raise CheckpointError(f"{source} holds no CLIP with deep prompts: {error} is missing or misshapen.") from error
    with torch.device("meta"):  # random initial weights would be overwritten
        clip = open_clip.CLIP(dimensions, image, text, quick_gelu=True)
        clip.register_module("visual", PromptedTower(vision_transformer(clip), prompts))
    return load_clip_weights(clip, {**state, "logit_scale": torch.zeros(())}, source)


def _depth(state: Mapping[str, Tensor], tower: str) -> int:
    """The number of transformer blocks of the tower whose tensors' names begin with `tower`.

    Raises KeyError when there are none.
    """
    matches = [re.match(rf"{re.escape(tower)}transformer\.resblocks\.(\d+)\.", name) for name in state]
    indices = [int(match[1]) for match in matches if match]
    if not indices:
        raise KeyError(f"{tower}transformer.resblocks.0")
    return 1 + max(indices)
