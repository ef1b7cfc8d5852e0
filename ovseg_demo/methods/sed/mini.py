"""SED on the bundled mini model: what its places say of each class, as a cost map for the same decoder.

A photo is read at three sizes: the small one tells what it is about, the large one finds small things (measured: VOC
gains from the former, CamVid from the latter; which to believe where is the decoder's to learn). The mini model speaks
at stride 4, SED's cost map lies at stride 32 of the middle size. So the finer logits of each of its places are folded
into channels, 8 x 8 of the middle and of the large size, 4 x 4 of the small one; the decoder's own transposed
convolutions can lay them out again. The last channel has what the untrained anchors alone say, the half of the model
that knows words which nobody taught it.
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
from ovseg_demo.models.mini.model import IMAGE_SIDE, DenseFeatures, MiniModel, preprocess
from ovseg_demo.models.mini.towers import ImageTower
from ovseg_demo.weights.loading import load_for_inference

FOLD = 8
"""Finer places in a place of the cost map, along each side: stride 32 over stride 4."""

DECODER_SIZES = DecoderSizes(
    prompts=2 * FOLD**2 + (FOLD // 2) ** 2 + 1,
    skips=ImageTower.CHANNELS[2::-1],
    widths=(48, 32, 16, 16),
    guides=(20, 8, 8),
)

SCALES = (0.5, 2.0)
"""Of the small and the large size, over the middle one."""

CENTRE, SPREAD = 1.0, 2.0
"""About the mean and the standard deviation of the mini model's logits, over places and words."""

MAP_SPREAD = 8.0
"""About the standard deviation of the image tower's maps."""


@dataclass(frozen=True)
class MultiScaleFeatures:
    """A photo at three sizes, their places brought to grids that fold evenly: (8h, 8w), (8h, 8w) and (4h, 4w)."""

    middle: DenseFeatures
    large: DenseFeatures
    small: DenseFeatures

    @property
    def nbytes(self) -> int:
        return self.middle.nbytes + self.large.nbytes + self.small.nbytes


def encode_at_scales(vlm: MiniModel, image: np.ndarray, longest: int = IMAGE_SIDE) -> MultiScaleFeatures:
    """A photo, uint8 (H, W, 3), the longest side of the middle size being about so many pixels."""
    middle = vlm.embed_pixels(preprocess(image, longest))
    height, width = middle.dense.shape[:2]
    small, large = (vlm.embed_pixels(preprocess(image, round(scale * longest))) for scale in SCALES)
    return MultiScaleFeatures(middle, _placed(large, (height, width)), _placed(small, (height // 2, width // 2)))


def _placed(features: DenseFeatures, size: tuple[int, int]) -> DenseFeatures:
    """With its places on another grid, and without its maps. Logits are linear in places: they move alike."""
    places = features.dense.float().movedim(-1, 0)[None]
    placed = F.interpolate(places, size, mode="bilinear", antialias=True)[0].movedim(0, -1)
    return replace(features, dense=placed.half().contiguous(), maps=())


class MiniCostMaps:
    """Cost maps and image features of the mini model; a `cost_maps.CostMapSource`.

    Photos always keep their aspect ratio.
    """

    slow_texts = False

    def __init__(self, vlm: MiniModel) -> None:
        self._vlm = vlm
        self.name = vlm.name

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), 384)."""
        return self._vlm.embed_texts(words)

    def embed_background_prompts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (R, 384), see `MiniModel.embed_background_prompts`."""
        return self._vlm.embed_background_prompts(words)

    def class_texts(self, rows: Tensor, owners: Tensor) -> Tensor:
        """Texts of classes (T, S, 384) from those of words (K, 384), S being the most words of a class.

        `owners`, int64 (K,), has the class of each word, every class from 0 to T - 1 at least once. A class scores as
        its best word, so classes of fewer words repeat their first.
        """
        members = [rows[owners == number] for number in range(int(owners.max()) + 1)]
        most = max(map(len, members))
        return torch.stack([torch.cat([each, each[:1].expand(most - len(each), -1)]) for each in members])

    def embed_image(self, image: np.ndarray, keep_aspect: bool = True) -> MultiScaleFeatures:
        """What is known of a photo, uint8 (H, W, 3), whose sides keep their ratio whatever `keep_aspect` says."""
        return encode_at_scales(self._vlm, image)

    def cost(self, photo: MultiScaleFeatures, texts: Tensor) -> Tensor:
        """float32 (T, P, h, w) at stride 32 of the middle size, about standardised.

        Args:
            texts: (T, S, 384), see `class_texts`.
        """
        words = texts.flatten(0, 1)

        def classes(logits: Tensor) -> Tensor:
            return logits.unflatten(0, texts.shape[:2]).amax(1, keepdim=True)

        middle, large, small = (
            classes(self._vlm.dense_logits(each, words)) for each in (photo.middle, photo.large, photo.small)
        )
        coarse = classes(self._vlm.anchor_logits(photo.middle, words))
        folded = [F.pixel_unshuffle(middle, FOLD), F.pixel_unshuffle(large, FOLD), F.pixel_unshuffle(small, FOLD // 2)]
        return (torch.cat([*folded, coarse], 1) - CENTRE) / SPREAD

    def skips(self, photo: MultiScaleFeatures) -> tuple[Tensor, ...]:
        """The image tower's maps at strides 16, 8 and 4, of a spread of about 1, float32, see `DenseFeatures.maps`."""
        return tuple(each.float() / MAP_SPREAD for each in photo.middle.maps)


def load_sed_mini(vlm: MiniModel, device: str) -> SED:
    """SED on the mini model, whose towers and heads are shared with its other methods.

    Raises CheckpointError when the decoder is missing, damaged or does not fit.
    """
    return SED(MiniCostMaps(vlm), OptimisedDecoder(load_for_inference(Decoder(DECODER_SIZES), "sed-mini").to(device)))
