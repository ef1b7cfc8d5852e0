"""The two frozen towers of the mini model: EfficientNet-Lite2 embeds images, all-MiniLM-L6-v2 embeds words."""

from collections.abc import Sequence

import timm
import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F
from transformers.models.bert import BertConfig, BertModel

from ovseg_demo.runtime.fused_layers import fuse_layers
from ovseg_demo.weights import catalogue
from ovseg_demo.weights.loading import load_for_inference

MEAN, STD = 127.0, 128.0
"""Normalisation of each of R, G and B on the 0..255 scale."""

_TEXT_BATCH = 16
_MAX_TOKENS = 64


class ImageTower:
    """EfficientNet-Lite2, an ImageNet classifier.

    It takes normalised pixels, float32 (B, 3, H, W).

    Args:
        device: where it runs.

    Raises:
        CheckpointError: when the weights are missing or damaged.
    """

    WIDTH, CLASSES = 1280, 1000
    STRIDES = (4, 8, 16, 32)
    CHANNELS = (24, 48, 120, WIDTH)
    _PYRAMID_BLOCKS = (1, 2, 4)  # blocks whose outputs are the maps of the finer strides

    def __init__(self, device: str | torch.device = "cpu") -> None:
        tower = load_for_inference(timm.create_model("tf_efficientnet_lite2"), "mini-image")
        fuse_layers(tower)
        self._tower = tower.to(device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  unknown to torch's types
        self.device = torch.device(device)

    def pyramid(self, pixels: Tensor) -> list[Tensor]:
        """Feature maps (B, C, H / s, W / s) for each stride s of STRIDES, with C from CHANNELS, finest first.

        Args:
            pixels: H and W are multiples of 32.
        """
        tower, maps = self._tower, []
        x = tower.bn1(tower.conv_stem(self._on_device(pixels)))
        for number, block in enumerate(tower.blocks):
            x = block(x)
            if number in self._PYRAMID_BLOCKS:
                maps.append(x)
        return [*maps, tower.bn2(tower.conv_head(x))]

    def pooled(self, pixels: Tensor) -> Tensor:
        """One feature vector an image, float32 (B, WIDTH)."""
        return self._tower.global_pool(self._tower.forward_features(self._on_device(pixels)))

    def class_logits(self, features: Tensor) -> Tensor:
        """Logits of the 1000 ImageNet classes, (..., 1000), of features (..., WIDTH), pooled or dense."""
        return self._tower.classifier(features)

    def _on_device(self, pixels: Tensor) -> Tensor:
        return pixels.to(self.device, memory_format=torch.channels_last)


class TextTower:
    """all-MiniLM-L6-v2 as sentence-transformers runs it: mean over the tokens, then unit length.

    Args:
        device: where it runs.

    Raises:
        CheckpointError: when the weights are missing, damaged or do not fit.
    """

    WIDTH = 384

    def __init__(self, device: str | torch.device = "cpu") -> None:
        config = BertConfig(
            hidden_size=self.WIDTH, num_hidden_layers=6, num_attention_heads=12, intermediate_size=4 * self.WIDTH
        )
        self._device = torch.device(device)
        self._bert = load_for_inference(BertModel(config, add_pooling_layer=False), "mini-text")
        self._bert.to(self._device)  # pyright: ignore[reportArgumentType]  transformers' decorator hides `self`
        fuse_layers(self._bert)
        self._tokenizer = Tokenizer.from_file(str(catalogue.BUNDLED / "mini-text-tokenizer.json"))
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
