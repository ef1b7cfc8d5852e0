"""CLIP with deep prompts, for inference: photos to windows, words to text embeddings."""

import math
import re
from collections.abc import Mapping, Sequence

import numpy as np
import open_clip
import torch
from open_clip.model import CLIPTextCfg, CLIPVisionCfg
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.tagclip.prompted_tower import EncodedWindows, PromptedTower
from ovseg_demo.methods.tagclip.training_info import TEMPLATES, Templates
from ovseg_demo.methods.tagclip.windows import EncodedPhoto, window_origins
from ovseg_demo.models import text_cache
from ovseg_demo.models.clip.optimised import Precision, native_precision, optimise
from ovseg_demo.models.clip.text import encode_shared_prefixes
from ovseg_demo.models.clip.weights import load_clip_weights
from ovseg_demo.proposals.base import Report
from ovseg_demo.runtime.preprocess import IMAGENET_MEAN, IMAGENET_STD, normalise_image, resize_unsmoothed
from ovseg_demo.vocabulary import verbatim_text

STRIDE_SHARE = 426 / 512
"""From a window to the next, as a share of its side."""

_LONGEST_RATIO = 16
"""Sides of thinner strips than 1 : 16 are brought to it, which bounds the number of windows."""

_HEAD_WIDTH = 64
_WINDOWS_AT_ONCE = {"cpu": 1}
_WINDOWS_ELSEWHERE = 8


class ClipWindowEncoder:
    """Reads photos and words; see `windows.WindowEncoder`.

    Args:
        state: tensors under open_clip's names, the image tower's as of `PromptedTower`.
        name: names the weights: what was once read in words is kept on disk under it.
        templates: the prompts of words.
        device: where it runs.
        source: where the weights are from, for messages.
        precision: of the image tower's linear layers; None is bfloat16 where the device computes it natively,
            otherwise float32. Words are always read in float32.

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
        self._templates: Templates = templates
        self.slow_texts = len(TEMPLATES[templates]) > 1
        self._model = build_prompted_clip(state, source)
        optimise(self._model.transformer, "float32")
        optimise(self._model.visual, precision or native_precision(self._device))
        self._model.to(self._device)
        self._side = self._model.visual.image_size[0]
        self._store = text_cache.TextEmbeddingCache(self.name, TEMPLATES[templates])

    @torch.inference_mode()
    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), D)."""
        by_prompt = self._store.completed(words, lambda missing: embed_prompts(self._model, missing, self._templates))
        return mean_direction(by_prompt.to(self._device))

    def embed_background_prompts(self, words: Sequence[str]) -> Tensor:
        """The embedding of "others" (1, D). TagCLIP has no rival; this is that of OVSeg's demo."""
        return self.embed_texts(["others"])

    @torch.inference_mode()
    def embed_image(self, image: np.ndarray, report: Report) -> EncodedPhoto:
        """Windows of a photo whose shorter side is that of a window, so that they lie in a row."""
        pixels, side = self._prepared(image), self._side
        starts = window_origins(pixels.shape[1:], side, round(side * STRIDE_SHARE))
        cut = torch.stack([pixels[:, top : top + side, left : left + side] for top, left in starts])
        read = []
        for some in cut.split(_WINDOWS_AT_ONCE.get(self._device.type, _WINDOWS_ELSEWHERE)):
            read.append(self._model.visual(some.to(self._device)))
            report(min(1.0, len(read) * len(some) / len(cut)))
        patches, images = (torch.cat([getattr(each, name) for each in read]) for name in ("patches", "images"))
        return EncodedPhoto((side, side), starts, EncodedWindows(patches, images))

    def _prepared(self, image: np.ndarray) -> Tensor:
        """A photo with a shorter side of a window's, normalised, float32 (3, H', W')."""
        scale = self._side / min(image.shape[:2])
        longest = self._side * _LONGEST_RATIO
        height, width = (min(longest, int(length * scale + 0.5)) for length in image.shape[:2])
        # Training has resized by mmsegmentation's rule, and normalised by ImageNet's constants instead of CLIP's own.
        return normalise_image(resize_unsmoothed(image, (height, width)), IMAGENET_MEAN, IMAGENET_STD)[0]


@torch.no_grad()
def embed_prompts(clip: open_clip.CLIP, words: Sequence[str], templates: Templates) -> Tensor:
    """Unit vectors, float32 (len(words), P, D), of words, verbatim, in each prompt; at least one word."""
    texts = [template.format(verbatim_text(word)) for word in words for template in TEMPLATES[templates]]
    tokens = open_clip.tokenize(texts).to(clip.text_projection.device)
    return F.normalize(encode_shared_prefixes(clip, tokens), dim=-1).unflatten(0, (len(words), -1))


def mean_direction(by_prompt: Tensor) -> Tensor:
    """Text embeddings (K, D) from those of prompts (K, P, D): unit vectors along their mean."""
    return F.normalize(by_prompt.mean(1), dim=-1)


def build_prompted_clip(state: Mapping[str, Tensor], source: str) -> open_clip.CLIP:
    """A CLIP with a `PromptedTower`, float32, in evaluation mode; its sizes are those of the tensors.

    Args:
        state: tensors under open_clip's names, without a logit scale.
        source: where they are from, for the message.

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
    with torch.device("meta"):  # no time for random numbers that are overwritten
        clip = open_clip.CLIP(dimensions, image, text, quick_gelu=True)
        clip.visual = PromptedTower(clip.visual, prompts)
    return load_clip_weights(clip, {**state, "logit_scale": torch.zeros(())}, source)


def _depth(state: Mapping[str, Tensor], tower: str) -> int:
    """How many blocks the names of a tower count."""
    found = [re.match(rf"{re.escape(tower)}transformer\.resblocks\.(\d+)\.", name) for name in state]
    if not any(found):
        raise KeyError(f"{tower}transformer.resblocks.0")
    return 1 + max(int(match[1]) for match in found if match)
