"""Initial weights of the decoder: random, except that its result is a weighted sum of the mini model's logits for
the three sizes of a photo.

So the decoder starts with the open vocabulary of the mini model, and training has only to improve the result. One path
through the decoder has weights set by hand: the cost skips unfold the folded logits, 8 x 8 to a place, and the last
stage passes them on to the last head.

Group normalisation would remove the mean and the spread of each class's logits, and so the differences between
classes. A constant that is large compared with everything else in the group keeps both nearly unchanged; it is a second
channel beside the logits.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ovseg_demo.methods.sed.decoder import Decoder
from ovseg_demo.methods.sed.mini import FOLD

LIFT = 4.0
"""Added to the logits, which are about standardised, so that nearly all of them pass the rectifiers of the path."""

ANCHOR = 24.0
"""The constant beside the logits, in the unit of the logits."""

GAIN, BIAS = 1.2, -4.5
"""Slope and intercept from standardised logits to logits of "this place is of this class", near the values that a
logistic regression gives."""

MIX = (0.4, 0.25, 0.35)
"""Weights of the logits for the middle, the large and the small size of the photo."""

_SIGNAL, _CONSTANT = 0, 1
"""Channels of the last cost skip."""


@torch.no_grad()
def initialise_decoder(decoder: Decoder) -> None:
    """Set the weights of the path in a decoder of random weights.

    Args:
        decoder: a decoder with the sizes `DECODER_SIZES`.
    """
    _unfold(decoder.cost_skips)
    last: Any = decoder.stages[-1]  # its layers have no static types
    cost_skip: Any = decoder.cost_skips[-1]
    hints = (
        last.mix[0].in_channels - cost_skip.out_channels
    )  # the first channel of the cost skip, the last of the inputs
    widened, first, _, mixed, second, _ = last.mix
    _carry(widened, {hints + _SIGNAL: 1.0, hints + _CONSTANT: -LIFT / ANCHOR}, {hints + _CONSTANT: 1.0})
    _carry(mixed, {0: 1.0, 1: -1.0}, {2: 1.0})
    for norm in (first, second):
        nn.init.constant_(norm.weight, ANCHOR * (2 / norm.num_channels) ** 0.5)
    head: Any = decoder.heads[-1]
    nn.init.zeros_(head.weight)
    _centre(head.weight)[0, :2] = torch.tensor([GAIN, -GAIN])
    nn.init.constant_(head.bias, BIAS)


def _unfold(cost_skips: nn.ModuleList) -> None:
    """Let each transposed convolution distribute the folded logits of a place over the four places that it becomes.

    The first one also sums the logits for the three sizes; a logit for the small size counts for four places.
    """
    side = FOLD
    layers: Any = list(cost_skips)
    for number, layer in enumerate(layers):
        half = side // 2
        layer.weight[:, : half**2] = 0
        layer.bias[: half**2] = LIFT if number == 0 else 0
        for row in range(side):
            for column in range(side):
                inner, phase = row % half * half + column % half, (row // half, column // half)
                channel = row * side + column
                if number:
                    layer.weight[channel, inner, *phase] = 1
                    continue
                layer.weight[channel, inner, *phase] = MIX[0]
                layer.weight[FOLD**2 + channel, inner, *phase] = MIX[1]
                layer.weight[2 * FOLD**2 + row // 2 * half + column // 2, inner, *phase] = MIX[2]
        side = half
    layers[-1].weight[:, _CONSTANT] = 0
    layers[-1].bias[_CONSTANT] = ANCHOR


def _carry(layer: nn.Conv2d, signal: dict[int, float], constant: dict[int, float]) -> None:
    """Let the first four outputs be the signal, its negative, the constant and its negative.

    No other output depends on the constant.

    Args:
        layer: the convolution.
        signal: weights of the signal by input channel, at the centre of the kernel.
        constant: weights of the constant by input channel, at the centre of the kernel.
    """
    layer.weight[:, list(constant)] = 0
    layer.weight[:4] = 0
    for output, inputs in ((0, signal), (2, constant)):
        for channel, weight in inputs.items():
            _centre(layer.weight)[output, channel] = weight
            _centre(layer.weight)[output + 1, channel] = -weight


def _centre(kernel: Tensor) -> Tensor:
    return kernel[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2]
