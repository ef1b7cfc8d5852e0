"""SED on the bundled mini model: what its places say of each class, as a cost map for the same decoder.

The mini model speaks at stride 4, SED's cost map lies at stride 32. So the 8 x 8 finer logits of each of its places
are folded into 64 channels; the decoder's own transposed convolutions can lay them out again. A 65th channel has what
the untrained anchors alone say, the half of the model that knows words which nobody taught it.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods.sed.decoder import Decoder, Sizes
from ovseg_demo.methods.sed.inference import Inference
from ovseg_demo.methods.sed.method import SED
from ovseg_demo.vlm.mini import MiniVLM, PhotoFeatures
from ovseg_demo.vlm.mini.towers import ImageTower, loaded

FOLD = 8
"""Finer places in a place of the cost map, along each side: stride 32 over stride 4."""

SIZES = Sizes(
    prompts=FOLD**2 + 1,
    skips=ImageTower.CHANNELS[2::-1],
    widths=(48, 32, 16, 16),
    guides=(20, 8, 8),
)

CENTRE, SPREAD = 1.0, 2.0
"""About the mean and the standard deviation of the mini model's logits, over places and words."""

MAP_SPREAD = 8.0
"""About the standard deviation of the image tower's maps."""


class MiniCosts:
    """Cost maps and image features of the mini model; a `reader.CostReader`.

    Photos always keep their aspect ratio.
    """

    heavy_words = False

    def __init__(self, vlm: MiniVLM) -> None:
        self._vlm = vlm
        self.name = vlm.name

    def embed_texts(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (len(words), 384)."""
        return self._vlm.embed_texts(words)

    def embed_rival(self, words: Sequence[str]) -> Tensor:
        """Unit vectors (R, 384), see `MiniVLM.embed_rival`."""
        return self._vlm.embed_rival(words)

    def class_texts(self, rows: Tensor, owners: Tensor) -> Tensor:
        """Texts of classes (T, S, 384) from those of words (K, 384), S being the most words of a class.

        `owners`, int64 (K,), has the class of each word, every class from 0 to T - 1 at least once. A class scores as
        its best word, so classes of fewer words repeat their first.
        """
        members = [rows[owners == number] for number in range(int(owners.max()) + 1)]
        most = max(map(len, members))
        return torch.stack([torch.cat([each, each[:1].expand(most - len(each), -1)]) for each in members])

    def embed_photo(self, image: np.ndarray, keep_aspect: bool = True) -> PhotoFeatures:
        """What is known of a photo, uint8 (H, W, 3), whose sides keep their ratio whatever `keep_aspect` says."""
        return self._vlm.embed_photo(image)

    def cost(self, photo: PhotoFeatures, texts: Tensor) -> Tensor:
        """float32 (T, 65, h, w) at stride 32, about standardised.

        Args:
            texts: (T, S, 384), see `class_texts`.
        """
        words = texts.flatten(0, 1)
        fine, coarse = (
            logits(photo, words).unflatten(0, texts.shape[:2]).amax(1)
            for logits in (self._vlm.place_logits, self._vlm.anchor_logits)
        )
        folded = F.pixel_unshuffle(fine[:, None], FOLD)
        return (torch.cat([folded, coarse[:, None]], 1) - CENTRE) / SPREAD

    def skips(self, photo: PhotoFeatures) -> tuple[Tensor, ...]:
        """The image tower's maps at strides 16, 8 and 4, of a spread of about 1, float32, see `PhotoFeatures.maps`."""
        return tuple(each.float() / MAP_SPREAD for each in photo.maps)


def load(vlm: MiniVLM, device: str) -> SED:
    """SED on the mini model, whose towers and heads are shared with its other methods.

    Raises CheckpointError when the decoder is missing, damaged or does not fit.
    """
    return SED(MiniCosts(vlm), Inference(loaded(Decoder(SIZES), "sed-mini").to(device)))
