"""A stock CLIP as an encoder of photos, patch by patch in windows, and of words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods.dense.strategies import Strategy, last_block
from ovseg_demo.methods.windows import WindowLayout
from ovseg_demo.models.clip.blocks import TransformerBlock
from ovseg_demo.models.clip.image_tower import ImageTower
from ovseg_demo.models.clip.optimised import OptimisedBlock, Precision, native_precision, optimise
from ovseg_demo.models.clip.templates import IMAGENET_TEMPLATES
from ovseg_demo.models.clip.text import CachedWordEmbeddings, mean_embeddings
from ovseg_demo.models.clip.weights import build_empty_clip, clip_tensors, load_clip_weights, vision_transformer
from ovseg_demo.proposals.base import Report
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD, normalise_image, resize_unsmoothed
from ovseg_demo.runtime.worker_pool import worker_pool
from ovseg_demo.weights import catalogue, loading

_TOKENS_AT_ONCE = {"cpu": 2**12}
_TOKENS_ELSEWHERE = 2**16


@dataclass(frozen=True)
class WindowTokens:
    """The tokens of a photo's windows before the last block.

    Attributes:
        tokens: float32 (windows, 1 + h * w, W), the class token first.
        layout: of the windows.
    """

    tokens: Tensor
    layout: WindowLayout

    @property
    def nbytes(self) -> int:
        return self.tokens.nbytes


@dataclass(frozen=True)
class DenseFeatures:
    """The patches of a photo's windows in the space of the texts.

    Attributes:
        patches: unit vectors, float32 (windows, h * w, D).
        layout: of the windows.
    """

    patches: Tensor
    layout: WindowLayout

    @property
    def nbytes(self) -> int:
        return self.patches.nbytes


class DenseClipEncoder:
    """A CLIP whose patches are compared with words; a `base.TextEncoder`.

    Args:
        architecture: open_clip model name, see `ClipRegionClassifier`.
        state: the weights, as `clip_state_dict` takes them.
        name: names the weights; text embeddings are cached on disk under it.
        device: torch device on which the model runs.
        source: where the weights are from, for messages.
        precision: of the image tower's linear layers; None is bfloat16 where the device computes it natively,
            otherwise float32. The text tower always computes in float32.

    Raises CheckpointError when the weights do not fit.
    """

    slow_texts = True
    """A word takes 80 texts, see `Stages.cached_batch`."""

    def __init__(
        self,
        architecture: str,
        state: Mapping,
        name: str,
        device: str | torch.device = "cpu",
        *,
        source: str,
        precision: Precision | None = None,
    ) -> None:
        self.name = f"{name} | dense"
        self._device = torch.device(device)
        self._model, self._tower = build_clip(architecture, state, source)
        self._model.to(self._device)
        optimise(self._model.transformer, "float32")
        optimise(self._tower, precision or native_precision(self._device))
        self._word_embeddings = CachedWordEmbeddings(self._model, name, IMAGENET_TEMPLATES)

    @property
    def patch(self) -> int:
        """Pixels a side of a patch."""
        return self._tower.patch_size[0]

    @torch.inference_mode()
    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Text embeddings, unit vectors (len(words), D), of at least one word, each the mean over 80 prompts."""
        return mean_embeddings(self._word_embeddings(words))

    def preprocess(self, image: np.ndarray, layout: WindowLayout) -> Tensor:
        """Normalised pixels, float32 (3, h, w), of a photo, uint8 (H, W, 3), resized to the size of the layout."""
        return normalise_image(resize_unsmoothed(image, layout.size), CLIP_MEAN, CLIP_STD)[0]

    @torch.inference_mode()
    def read_windows(self, image: np.ndarray, layout: WindowLayout, report: Report) -> WindowTokens:
        """The tokens of a photo's windows, as many windows at once as memory allows.

        Args:
            image: uint8 (H, W, 3), RGB.
            layout: of its windows.
            report: called with the share of the windows that are done, in (0, 1].
        """
        windows = torch.stack(list(layout.cut(self.preprocess(image, layout))))
        tokens_each = 1 + layout.grid[0] * layout.grid[1]
        at_once = max(1, _TOKENS_AT_ONCE.get(self._device.type, _TOKENS_ELSEWHERE) // tokens_each)
        tokens, done = [], 0
        with worker_pool(self._device) as workers:
            for batch in windows.split(at_once):
                tokens += workers.map(self._read, workers.chunks(batch))
                done += len(batch)
                report(done / len(windows))
        return WindowTokens(torch.cat(tokens), layout)

    def _read(self, windows: Tensor) -> Tensor:
        """The tokens (B, 1 + h * w, W) before the last block, of windows (B, 3, h', w')."""
        return self._tower.run_blocks(self._tower.embed(*self._tower.patchify(windows.to(self._device))), stop=-1)

    @torch.inference_mode()
    def features(self, read: WindowTokens, strategy: Strategy) -> DenseFeatures:
        """The patches in the space of the texts, after the last block with the attention of a strategy."""
        block = cast(TransformerBlock | OptimisedBlock, self._tower.blocks[-1])

        def finish(tokens: Tensor) -> Tensor:
            gathered = last_block(block, tokens, read.layout.grid, strategy)[:, 1:]
            return F.normalize(self._tower.project(gathered), dim=-1)

        # Window by window on each core, so that the logits of attention stay in its cache.
        with worker_pool(self._device) as workers:
            return DenseFeatures(torch.cat(workers.map(finish, read.tokens.split(1))), read.layout)


def build_clip(architecture: str, state: Mapping, source: str) -> tuple[open_clip.CLIP, ImageTower]:
    """A CLIP, float32, in evaluation mode, and its image tower, whose positions fit any grid by NACLIP's rule.

    Args:
        architecture: open_clip model name.
        state: the weights, as `clip_state_dict` takes them.
        source: where the weights are from, for messages.

    Raises CheckpointError when the weights do not fit.
    """
    clip = build_empty_clip(architecture)
    tower = ImageTower(vision_transformer(clip), "bicubic-offset")
    clip.register_module("visual", tower)
    return load_clip_weights(clip, clip_tensors(state), source), tower


def load_dense_clip(architecture: str, checkpoint_id: str, device: str) -> DenseClipEncoder:
    """The encoder with catalogued weights.

    Args:
        architecture: open_clip model name.
        checkpoint_id: catalogue id of its weights.
        device: where the model runs.

    Raises CheckpointError when the weights are missing, damaged or do not fit.
    """
    entry = catalogue.get(checkpoint_id)
    state = loading.load_state_dict(checkpoint_id)
    weights = f"{checkpoint_id} {catalogue.sha256_of(entry.path)}"
    return DenseClipEncoder(architecture, state, weights, device, source=entry.file)
