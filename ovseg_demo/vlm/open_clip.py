"""CLIP models (open_clip) as region classifiers, stock or adapted to masked crops."""

from collections.abc import Mapping, Sequence

import numpy as np
import open_clip
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo import checkpoints
from ovseg_demo.errors import CheckpointError
from ovseg_demo.proposals.base import MaskProposals, Report
from ovseg_demo.vlm.regions import masked_crops
from ovseg_demo.vocabulary import readable

LOGIT_SCALE = 100.0
"""Multiplies cosine similarities, as in OVSeg; the checkpoint's own learned scale is its clamp, also 100."""

TEMPLATE = "a photo of {}"
"""The single prompt of OVSeg's public demo: no article, no full stop."""

_MEAN = tuple(255 * m for m in (0.48145466, 0.4578275, 0.40821073))
_STD = tuple(255 * s for s in (0.26862954, 0.26130258, 0.27577711))
_ARCHIVE_EXTRAS = ("input_resolution", "context_length", "vocab_size")
_BATCH = 32


class OpenClipVLM:
    """A CLIP of open_clip.

    Args:
        architecture: open_clip model name. OpenAI's and OVSeg's weights need a "-quickgelu" one: they were trained
            with x * sigmoid(1.702 x), which the plain names replace by the exact GELU.
        checkpoint_id: catalogue id of its weights.
        device: where it runs.

    Raises CheckpointError when the weights are missing, damaged or do not fit.
    """

    def __init__(self, architecture: str, checkpoint_id: str, device: str | torch.device = "cpu") -> None:
        state = clip_state_dict(checkpoints.load_state_dict(checkpoint_id))
        model = open_clip.create_model(architecture, pretrained=None, pretrained_text=False)
        checkpoints.load_strict(model, state, checkpoints.get(checkpoint_id).file)
        self.name = checkpoint_id
        self._model = model.float().eval().to(device)
        self._tokenizer = open_clip.get_tokenizer(architecture)
        self._device = torch.device(device)

    @torch.inference_mode()
    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), D)."""
        tokens = self._tokenizer([TEMPLATE.format(readable(word)) for word in words]).to(self._device)
        return F.normalize(self._model.encode_text(tokens), dim=-1)

    def embed_rival(self, words: Sequence[str]) -> Tensor:
        """The embedding of "others" (1, D), as OVSeg's demo adds it to a one-word vocabulary."""
        return self.embed_texts(["others"])

    @torch.inference_mode()
    def embed_regions(self, image: np.ndarray, proposals: MaskProposals, report: Report) -> Tensor:
        """Unit vectors (N, D)."""
        side = self._model.visual.image_size[0]
        embeddings = [torch.empty(0, self._model.visual.output_dim, device=self._device)]
        done = 0
        for crops in masked_crops(image, proposals, size=side, mean=_MEAN, std=_STD, batch_size=_BATCH):
            embeddings.append(F.normalize(self._model.encode_image(crops.to(self._device)), dim=-1))
            done += len(crops)
            report(done / len(proposals))
        return torch.cat(embeddings)

    def logits(self, regions: Tensor, texts: Tensor) -> Tensor:
        """Scaled cosine similarities (N, K)."""
        return LOGIT_SCALE * regions @ texts.T


def clip_state_dict(published: Mapping) -> dict[str, Tensor]:
    """The tensors of a CLIP file under open_clip's names, float32.

    Accepts open_clip's and OpenAI's files (which share their names), training checkpoints with the weights under
    "state_dict", and a leading "module." of data-parallel training. Raises CheckpointError for anything else.
    """
    state = published.get("state_dict", published)
    if not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError("This file holds no CLIP weights: expected a table of tensors.")
    named = {name.removeprefix("module."): value for name, value in state.items()}
    return {n: v.float() for n, v in named.items() if n not in _ARCHIVE_EXTRAS}
