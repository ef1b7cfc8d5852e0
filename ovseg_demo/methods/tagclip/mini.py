"""TagCLIP on the bundled mini model: its own decoder over what an ImageNet classifier knows of places.

What stands for CLIP, which has never seen a mask, are the image tower and the anchors, not the bundled dense head,
which has seen masks of many classes. With a linear kernel the anchors' regression is a product of texts with one vector
at every place; what stands for the deep prompts is a residual that is learnt beside it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.tagclip.decoder import Decoder, DecoderSizes
from ovseg_demo.methods.tagclip.method import TagCLIP
from ovseg_demo.methods.tagclip.prompted_tower import EncodedWindows
from ovseg_demo.methods.tagclip.training_info import read_training_info
from ovseg_demo.methods.tagclip.windows import EncodedPhoto
from ovseg_demo.models.mini.heads import Mix
from ovseg_demo.models.mini.model import DenseFeatures, MiniModel
from ovseg_demo.models.mini.towers import ImageTower, TextTower
from ovseg_demo.proposals.base import Report
from ovseg_demo.weights import catalogue
from ovseg_demo.weights.loading import load_for_inference

CHECKPOINT = "tagclip-mini"

DECODER_SIZES = DecoderSizes(width=TextTower.WIDTH, heads=6, layers=2)

ANCHORS = 1275
WIDTH = 128
_STRIDE = ImageTower.STRIDES[-1]
_MAP_SPREAD = 8.0  # about the standard deviation of the image tower's maps


class MiniAdapter(nn.Module):
    """What the frozen mini model says of places, as unit vectors in the text space at stride 16.

    Attributes:
        anchor_projection: (A, D), maps weights of the anchors to the vector whose product with a text embedding is the
            anchors' linear regression at that text.
    """

    def __init__(self, anchors: int = ANCHORS, texts: int = TextTower.WIDTH, width: int = WIDTH) -> None:
        super().__init__()
        _, fine, coarse, _ = ImageTower.CHANNELS
        self.register_buffer("anchor_projection", torch.zeros(anchors, texts))
        self.from_anchors, self.from_coarse, self.from_fine = (_lateral(c, width) for c in (anchors, coarse, fine))
        self.from_whole = nn.Linear(anchors, width)
        self.mix = nn.ModuleList(Mix(width) for _ in range(2))
        self.out = nn.Conv2d(width, texts, 1)
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, anchors: Tensor, coarse: Tensor, fine: Tensor) -> EncodedWindows:
        """Patches (B, D, 2h, 2w) and images (B, D).

        Args:
            anchors: their weights at stride 32, (B, A, h, w).
            coarse, fine: maps of the image tower at strides 16 and 8, (B, 120, 2h, 2w) and (B, 48, 4h, 4w).
        """
        coarse, fine = coarse / _MAP_SPREAD, fine / _MAP_SPREAD
        said = torch.einsum("bahw,ad->bdhw", anchors, self.anchor_projection)
        images = F.normalize(F.normalize(said, dim=1).mean((2, 3)), dim=1)
        x = self.from_anchors(anchors) + self.from_whole(anchors.mean((2, 3)))[..., None, None]
        x = _doubled(self.mix[0](x)) + self.from_coarse(coarse) + F.avg_pool2d(self.from_fine(fine), 2)
        residual = self.out(F.gelu(self.mix[1](x)))
        return EncodedWindows(F.normalize(F.normalize(_doubled(said), dim=1) + residual, dim=1), images)


def _lateral(channels: int, width: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(channels, width, 1), nn.GroupNorm(1, width))


def _doubled(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)


class MiniTagCLIPModel(nn.Module):
    """The adapter and the decoder: what a file holds."""

    def __init__(self, sizes: DecoderSizes = DECODER_SIZES) -> None:
        super().__init__()
        self.adapter, self.decoder = MiniAdapter(), Decoder(sizes)


class MiniWindowEncoder:
    """Reads a photo whole, as one window; a `encode_photo.WindowEncoder`."""

    slow_texts = False

    def __init__(self, vlm: MiniModel, adapter: MiniAdapter) -> None:
        self._vlm, self._adapter = vlm, adapter
        self.name = f"{vlm.name} | {CHECKPOINT}"

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), 384)."""
        return self._vlm.embed_texts(words)

    def embed_background_prompts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (R, 384), see `MiniModel.embed_background_prompts`."""
        return self._vlm.embed_background_prompts(words)

    @torch.inference_mode()
    def embed_image(self, image: np.ndarray, report: Report) -> EncodedPhoto:
        """What is known of a photo, uint8 (H, W, 3)."""
        return encode_photo(self._vlm.embed_image(image), self._adapter)


@torch.inference_mode()
def encode_photo(photo: DenseFeatures, adapter: MiniAdapter) -> EncodedPhoto:
    """A photo that the mini model has read, as one window."""
    anchors = photo.anchors.movedim(-1, 0)
    coarse, fine, _ = (level[None].float() for level in photo.maps)
    height, width = anchors.shape[1:]
    return EncodedPhoto((_STRIDE * height, _STRIDE * width), ((0, 0),), adapter(anchors[None], coarse, fine))


def load_tagclip_mini(vlm: MiniModel, device: str | torch.device) -> TagCLIP:
    """TagCLIP on the mini model, whose towers are shared with its other methods.

    Raises CheckpointError when the file is missing, damaged or does not fit.
    """
    model = load_for_inference(MiniTagCLIPModel(), CHECKPOINT).to(device)
    return TagCLIP(
        MiniWindowEncoder(vlm, model.adapter), model.decoder, read_training_info(catalogue.get(CHECKPOINT).path)
    )
