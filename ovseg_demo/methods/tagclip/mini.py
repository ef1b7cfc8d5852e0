"""TagCLIP on the bundled mini model: its own decoder over dense features of an ImageNet classifier.

The image tower and the anchors take the place of CLIP, since none of the three was trained on masks. The bundled dense
head is not used, since it was trained on masks of many classes. With a linear kernel the regression of the anchors is,
at every position, the product of a text embedding with one vector; a learned residual, which is added to this vector,
takes the place of the deep prompts.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.tagclip.decoder import Decoder, DecoderSizes
from ovseg_demo.methods.tagclip.method import TagCLIP
from ovseg_demo.methods.tagclip.training_info import read_training_info
from ovseg_demo.methods.tagclip.windows import ImageEmbeddings, WindowedPhoto
from ovseg_demo.models.mini.anchors import ANCHORS
from ovseg_demo.models.mini.heads import Mix, doubled, lateral
from ovseg_demo.models.mini.model import DenseFeatures, MiniModel, preprocess
from ovseg_demo.models.mini.towers import ImageTower, TextTower
from ovseg_demo.proposals.base import Report
from ovseg_demo.weights import catalogue
from ovseg_demo.weights.loading import load_for_inference

CHECKPOINT = "tagclip-mini"

DECODER_SIZES = DecoderSizes(width=TextTower.WIDTH, heads=6, layers=2)

WIDTH = 128
"""Channels of the adapter."""
_STRIDE = ImageTower.STRIDES[-1]
_MAP_SPREAD = 8.0  # about the standard deviation of the image tower's maps


class MiniAdapter(nn.Module):
    """Features of the frozen mini model to image and patch embeddings: unit vectors in the text space.

    Args:
        anchors: A, the number of anchors.
        texts: D, dimensions of the text space.
        width: channels inside.

    Attributes:
        anchor_projection: (A, D), maps weights of the anchors to the vector whose product with a text embedding is the
            anchors' linear regression at that text.
    """

    anchor_projection: Tensor

    def __init__(self, anchors: int = ANCHORS, texts: int = TextTower.WIDTH, width: int = WIDTH) -> None:
        super().__init__()
        _, fine, coarse, _ = ImageTower.CHANNELS
        self.register_buffer("anchor_projection", torch.zeros(anchors, texts))
        self.from_anchors, self.from_coarse, self.from_fine = (lateral(c, width) for c in (anchors, coarse, fine))
        self.from_whole = nn.Linear(anchors, width)
        self.mix = nn.ModuleList(Mix(width) for _ in range(2))
        self.out = nn.Conv2d(width, texts, 1)
        assert self.out.bias is not None
        nn.init.zeros_(self.out.weight)
        nn.init.zeros_(self.out.bias)

    def forward(self, anchors: Tensor, coarse: Tensor, fine: Tensor) -> ImageEmbeddings:
        """Patch embeddings (B, D, 2h, 2w) at stride 16 and image embeddings (B, D).

        Args:
            anchors: weights of the anchors at stride 32, (B, A, h, w).
            coarse: maps of the image tower at stride 16, (B, 120, 2h, 2w).
            fine: maps of the image tower at stride 8, (B, 48, 4h, 4w).
        """
        coarse, fine = coarse / _MAP_SPREAD, fine / _MAP_SPREAD
        regression = torch.einsum("bahw,ad->bdhw", anchors, self.anchor_projection)
        images = F.normalize(F.normalize(regression, dim=1).mean((2, 3)), dim=1)
        x = self.from_anchors(anchors) + self.from_whole(anchors.mean((2, 3)))[..., None, None]
        x = doubled(self.mix[0](x)) + self.from_coarse(coarse) + F.avg_pool2d(self.from_fine(fine), 2)
        residual = self.out(F.gelu(self.mix[1](x)))
        return ImageEmbeddings(F.normalize(F.normalize(doubled(regression), dim=1) + residual, dim=1), images)


class MiniTagCLIPModel(nn.Module):
    """The adapter and the decoder; their weights lie in one file.

    Args:
        sizes: of the decoder.
    """

    def __init__(self, sizes: DecoderSizes = DECODER_SIZES) -> None:
        super().__init__()
        self.adapter, self.decoder = MiniAdapter(), Decoder(sizes)


class MiniWindowEncoder:
    """The mini model with an adapter as a `windows.WindowEncoder`: the whole photo is one window.

    Args:
        model: the mini model.
        adapter: makes patch embeddings from the features of the mini model.
    """

    slow_text_encoder = False

    def __init__(self, model: MiniModel, adapter: MiniAdapter) -> None:
        self._model, self._adapter = model, adapter
        self.name = f"{model.name} | {CHECKPOINT}"

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), 384)."""
        return self._model.embed_texts(words)

    @torch.inference_mode()
    def embed_image(self, image: np.ndarray, report: Report) -> WindowedPhoto:
        """A photo, uint8 (H, W, 3), RGB, as one embedded window; `report` is not called."""
        return embed_as_one_window(self._model.embed_pixels(preprocess(image)), self._adapter)


@torch.inference_mode()
def embed_as_one_window(photo: DenseFeatures, adapter: MiniAdapter) -> WindowedPhoto:
    """A whole photo as one embedded window.

    Args:
        photo: its dense features.
        adapter: makes patch embeddings from them.
    """
    anchors = photo.anchors.movedim(-1, 0)
    coarse, fine, _ = (level[None].float() for level in photo.maps)
    height, width = anchors.shape[1:]
    return WindowedPhoto((_STRIDE * height, _STRIDE * width), ((0, 0),), adapter(anchors[None], coarse, fine))


def load_tagclip_mini(model: MiniModel, device: str | torch.device) -> TagCLIP:
    """TagCLIP on the mini model, whose towers are shared with its other methods.

    Args:
        model: the mini model.
        device: where the adapter and the decoder run.

    Raises:
        CheckpointError: when the file is missing, damaged or does not fit.
    """
    trained = load_for_inference(MiniTagCLIPModel(), CHECKPOINT).to(device)
    info = read_training_info(catalogue.get(CHECKPOINT).path)
    return TagCLIP(MiniWindowEncoder(model, trained.adapter), trained.decoder, info, dense_model=model)
