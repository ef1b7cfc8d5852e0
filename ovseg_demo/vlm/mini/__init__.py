"""The bundled mini model: an ImageNet classifier and a sentence encoder, aligned without any training.

The image tower scores 1000 classes; the text tower places their names, and common concepts that several of the
classes speak for, as anchors in its space. For each region, kernel ridge regression carries the scores from the
anchors to every other text. checkpoints/MODEL_CARD.md has the formula, the origins and the measurements.
"""

from collections.abc import Sequence

import numpy as np
import timm
import torch
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.models.bert import BertConfig, BertModel

from ovseg_demo import checkpoints
from ovseg_demo.crew import crew
from ovseg_demo.fused import fuse
from ovseg_demo.proposals.base import MaskProposals, Report
from ovseg_demo.vlm.regions import masked_crops
from ovseg_demo.vocabulary import readable

SIZE = 224
"""Side of the crops. The tower was trained at 260; on masked regions 224 is better, and a quarter faster."""

SHARPNESS = 6.0
"""A concept scores as a soft maximum over its evidence; infinity would be the maximum, 0 the mean."""

LOGIT_SCALE = 1.5
"""Makes the softmax over a handful of words roughly calibrated (chosen on coco_train, see the model card)."""

RIVALS = ("object", "background", "landscape", "room")
"""What else a region may be when the vocabulary is a single word: broad texts that score middling everywhere."""

_SAME = 0.6  # cosine above which a rival means what the person typed
_MEAN, _STD = (127.0,) * 3, (128.0,) * 3
_BATCH = 8  # on a CPU: its maps stay in the last cache
_GPU_BATCH = 64
_TEXT_BATCH = 16
_MAX_TOKENS = 64


class TextTower:
    """all-MiniLM-L6-v2 as sentence-transformers runs it: mean over the tokens, then unit length.

    Raises CheckpointError when the weights are missing, damaged or do not fit.
    """

    WIDTH = 384

    def __init__(self, device: str | torch.device = "cpu") -> None:
        config = BertConfig(
            hidden_size=self.WIDTH, num_hidden_layers=6, num_attention_heads=12, intermediate_size=4 * self.WIDTH
        )
        self._device = torch.device(device)
        self._bert = _loaded(BertModel(config, add_pooling_layer=False), "mini-text").to(self._device)
        fuse(self._bert)
        self._tokenizer = Tokenizer.from_file(str(checkpoints.BUNDLED / "mini-text-tokenizer.json"))
        self._tokenizer.enable_truncation(_MAX_TOKENS)
        self._tokenizer.enable_padding()

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str]) -> Tensor:
        """Unit vectors, float32 (len(texts), WIDTH)."""
        embeddings = torch.empty(len(texts), self.WIDTH, device=self._device)
        by_length = sorted(range(len(texts)), key=lambda i: len(texts[i]))
        for start in range(0, len(texts), _TEXT_BATCH):
            chosen = by_length[start : start + _TEXT_BATCH]
            tokens = self._tokenizer.encode_batch([texts[i] for i in chosen])
            ids = torch.tensor([t.ids for t in tokens], device=self._device)
            mask = torch.tensor([t.attention_mask for t in tokens], device=self._device)
            hidden = self._bert(input_ids=ids, attention_mask=mask).last_hidden_state
            embeddings[chosen] = F.normalize((hidden * mask[..., None]).sum(1), dim=-1)
        return embeddings


class MiniVLM:
    """EfficientNet-Lite2 and all-MiniLM-L6-v2. Raises CheckpointError when weights are missing or damaged."""

    name = "mini"

    def __init__(self, device: str | torch.device = "cpu") -> None:
        self._device = torch.device(device)
        tower = _loaded(timm.create_model("tf_efficientnet_lite2"), "mini-image")
        fuse(tower)
        self._image_tower = tower.to(self._device, memory_format=torch.channels_last)
        self._text_tower = TextTower(self._device)
        stored = checkpoints.load_state_dict("mini-anchors")
        anchors = stored["embeddings"].float()
        smoother = torch.linalg.inv(_kernel(anchors, anchors) + torch.eye(len(anchors)))
        self._anchors, self._smoother = anchors.to(self._device), smoother.to(self._device)
        self._evidence = stored["evidence"].bool().to(self._device)

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), 384)."""
        return self._text_tower([readable(word) for word in words])

    def embed_rival(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (R, 384) of the broad texts that do not mean one of `words`; at least the farthest."""
        rivals = self._text_tower(RIVALS)
        closest = (rivals @ self.embed_texts(words).T).amax(1)
        return rivals[closest <= closest.min().clamp(min=_SAME)]

    @torch.inference_mode()
    def embed_regions(self, image: np.ndarray, proposals: MaskProposals, report: Report) -> Tensor:
        """Weights of the anchors (N, A) in each region's regression."""
        classes = [torch.empty(0, self._evidence.shape[1], device=self._device)]
        size = _BATCH if self._device.type == "cpu" else _GPU_BATCH
        crops = masked_crops(image, proposals, size=SIZE, mean=_MEAN, std=_STD, batch_size=size, antialias=True)
        done = 0
        with crew(self._device) as workers:
            for batch in crops:
                batch = batch.to(self._device, memory_format=torch.channels_last)
                classes += workers.map(self._image_tower, workers.pieces(batch))
                done += len(batch)
                report(done / len(proposals))
        return anchor_scores(torch.cat(classes), self._evidence) @ self._smoother

    def logits(self, regions: Tensor, texts: Tensor) -> Tensor:
        """Regression of each region's anchor scores (N, A) at each text (K, 384), scaled: (N, K)."""
        return LOGIT_SCALE * regions @ _kernel(self._anchors, texts.to(self._device))


def anchor_scores(classes: Tensor, evidence: Tensor) -> Tensor:
    """What each region says about each anchor: the classes' own scores, then the concepts'.

    Args:
        classes: logits of the image tower, (N, 1000); standardised here within each region, because an unsure
            tower flattens all of them.
        evidence: bool (C, 1000), the classes that speak for each concept.

    Returns:
        (N, 1000 + C); a concept scores log-mean-exp of its evidence, in standard deviations.
    """
    spread, mean = torch.std_mean(classes, 1, keepdim=True)
    standard = (classes - mean) / spread
    spoken = torch.where(evidence, SHARPNESS * standard[:, None], -torch.inf)
    concepts = (spoken.logsumexp(-1) - evidence.sum(1).log()) / SHARPNESS
    return torch.cat([standard, concepts], 1)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """Gaussian kernel exp(-|a - b|²) between unit vectors (M, D) and (K, D), as (M, K)."""
    return (2 * (a @ b.T - 1)).exp()


def _loaded(module: nn.Module, checkpoint_id: str) -> nn.Module:
    """`module` with a checkpoint's weights in single precision, ready for inference."""
    state = checkpoints.load_state_dict(checkpoint_id)
    single = {name: value.float() if value.is_floating_point() else value for name, value in state.items()}
    checkpoints.load_strict(module, single, checkpoints.get(checkpoint_id).file)
    return module.eval().requires_grad_(False)
