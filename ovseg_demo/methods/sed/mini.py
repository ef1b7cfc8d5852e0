"""SED on the bundled mini model: its dense logits of each class as a cost map for the same decoder.

A photo is encoded at three sizes: the small one shows the whole scene, the large one small objects (measured: VOC gains
from the former, CamVid from the latter; the decoder learns how to weight them). Dense logits of the mini model have
stride 4, SED's cost map has stride 32 of the middle size. So the logits inside each position of the cost map are folded
into channels, 8 x 8 of the middle and of the large size, 4 x 4 of the small size; the decoder's transposed convolutions
can unfold them. The last channel holds the logits of the untrained anchors alone, because the trained heads are less
reliable for words that were in no training data.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods.sed.decoder import Decoder, DecoderSizes
from ovseg_demo.methods.sed.method import SED
from ovseg_demo.methods.sed.optimised_decoder import OptimisedDecoder
from ovseg_demo.models.mini.model import IMAGE_SIDE, DenseFeatures, MiniModel, preprocess, resize_grid
from ovseg_demo.models.mini.towers import ImageTower
from ovseg_demo.weights.loading import load_for_inference

FOLD = 8
"""Dense logits along each side of a position of the cost map: stride 32 over stride 4."""

_AT_4, _AT_8, _AT_16, _ = ImageTower.CHANNELS

DECODER_SIZES = DecoderSizes(
    prompts=2 * FOLD**2 + (FOLD // 2) ** 2 + 1,
    skips=(_AT_16, _AT_8, _AT_4),
    widths=(48, 32, 16, 16),
    guides=(20, 8, 8),
)

SCALES = (0.5, 2.0)
"""The small and the large size as multiples of the middle size."""

CENTRE, SPREAD = 1.0, 2.0
"""About the mean and the standard deviation of the mini model's logits, over positions and words."""

MAP_SPREAD = 8.0
"""About the standard deviation of the image tower's maps."""


@dataclass(frozen=True)
class MultiScaleFeatures:
    """Dense features of a photo at three sizes, for a cost map of (h, w).

    Attributes:
        middle: with embeddings of the dense head on a grid of (8h, 8w), and the image tower's maps.
        large: with embeddings resized to (8h, 8w), without maps.
        small: with embeddings resized to (4h, 4w), without maps.
    """

    middle: DenseFeatures
    large: DenseFeatures
    small: DenseFeatures

    @property
    def nbytes(self) -> int:
        """Bytes of all features in memory."""
        return self.middle.nbytes + self.large.nbytes + self.small.nbytes


def encode_at_scales(model: MiniModel, image: np.ndarray, longest: int = IMAGE_SIDE) -> MultiScaleFeatures:
    """Encode a photo at three sizes.

    Args:
        model: the mini model.
        image: uint8 (H, W, 3), RGB.
        longest: pixels of the longest side of the middle size, up to rounding.
    """
    middle = model.embed_pixels(preprocess(image, longest))
    height, width = middle.dense.shape[:2]
    small, large = (model.embed_pixels(preprocess(image, round(scale * longest))) for scale in SCALES)
    return MultiScaleFeatures(
        middle, _resize_dense(large, (height, width)), _resize_dense(small, (height // 2, width // 2))
    )


def _resize_dense(features: DenseFeatures, size: tuple[int, int]) -> DenseFeatures:
    """Features with embeddings on another grid, and without maps.

    Logits are linear in the embeddings, so this equals resizing the logits of every text.
    """
    return replace(features, dense=resize_grid(features.dense.float(), size).half(), maps=())


class MiniCostMaps:
    """Cost maps and image features of the mini model; a `cost_maps.CostMapSource`.

    Photos always keep their aspect ratio.

    Args:
        model: the mini model.
    """

    slow_text_encoder = False

    def __init__(self, model: MiniModel) -> None:
        self._model = model
        self.name = model.name

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), 384)."""
        return self._model.embed_texts(words)

    def class_embeddings(self, embeddings: Tensor, class_indices: Tensor) -> Tensor:
        """Embeddings of the words of each class, (T, S, 384), S being the largest number of words of a class.

        A class gets the logit of its best word, so classes of fewer words repeat their first.

        Args:
            embeddings: of K words, (K, 384).
            class_indices: int64 (K,), the class of each word; every class from 0 to T - 1 occurs.
        """
        classes = [embeddings[class_indices == index] for index in range(int(class_indices.max()) + 1)]
        most = max(map(len, classes))
        return torch.stack([torch.cat([words, words[:1].expand(most - len(words), -1)]) for words in classes])

    def embed_image(self, image: np.ndarray, keep_aspect: bool = True) -> MultiScaleFeatures:
        """Features of a photo, uint8 (H, W, 3), RGB, which keeps its aspect ratio whatever `keep_aspect` is."""
        return encode_at_scales(self._model, image)

    def cost_map(self, features: MultiScaleFeatures, texts: Tensor) -> Tensor:
        """Logits at stride 32 of the middle size, float32 (T, P, h, w), roughly standardised.

        Args:
            features: from `embed_image`.
            texts: (T, S, 384), from `class_embeddings`.
        """
        words = texts.flatten(0, 1)

        def of_classes(logits: Tensor) -> Tensor:
            return logits.unflatten(0, texts.shape[:2]).amax(1, keepdim=True)

        middle, large, small = (
            of_classes(self._model.dense_logits(scale, words))
            for scale in (features.middle, features.large, features.small)
        )
        coarse = of_classes(self._model.anchor_logits(features.middle, words))
        folded = [F.pixel_unshuffle(middle, FOLD), F.pixel_unshuffle(large, FOLD), F.pixel_unshuffle(small, FOLD // 2)]
        return (torch.cat([*folded, coarse], 1) - CENTRE) / SPREAD

    def skips(self, features: MultiScaleFeatures) -> tuple[Tensor, ...]:
        """The image tower's maps at strides 16, 8 and 4, float32, with a standard deviation of about 1."""
        return tuple(level.float() / MAP_SPREAD for level in features.middle.maps)


def load_sed_mini(model: MiniModel, device: str) -> SED:
    """SED on the mini model, whose towers and heads are shared with its other methods.

    Args:
        model: the mini model.
        device: where the decoder runs.

    Raises:
        CheckpointError: when the file of the decoder is missing, damaged or does not fit.
    """
    decoder = load_for_inference(Decoder(DECODER_SIZES), "sed-mini").to(device)
    return SED(MiniCostMaps(model), OptimisedDecoder(decoder), dense_model=model)
