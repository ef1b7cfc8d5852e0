"""The decoder as it begins: random, but its result is a weighted sum of what the mini model's places
say at the three sizes of a photo.

So nothing that the mini model knows of words is lost at the start, and training has only to improve on it. One path
through the decoder is laid by hand: the cost skips lay the folded logits out again, 8 x 8 to a place, and the last
stage hands them on to the last head.

Group normalisation would take each class's own mean and spread away, and with them which class is the likeliest. A
constant that outweighs everything else in the group keeps both nearly as they are; it travels with the logits.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ovseg_demo.methods.sed.decoder import Decoder
from ovseg_demo.methods.sed.mini import FOLD

LIFT = 4.0
"""Added to the logits, which are about standardised, so that the rectifiers on their way let nearly all pass."""

ANCHOR = 24.0
"""The constant, in the same unit."""

GAIN, BIAS = 1.2, -4.5
"""From standardised logits to those of "this place is of this class": near what a logistic regression gives."""

MIX = (0.4, 0.25, 0.35)
"""How much the middle, the large and the small reading count."""

_SIGNAL, _CONSTANT = 0, 1
"""Channels of the last cost skip."""


@torch.no_grad()
def initialise_decoder(decoder: Decoder) -> None:
    """Lay the path in a decoder of random weights."""
    _unfold(decoder.cost_skips)
    last: Any = decoder.stages[-1]  # its layers have no static types
    cost_skip: Any = decoder.cost_skips[-1]
    hints = last.mix[0].in_channels - cost_skip.out_channels  # the last of its inputs
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
    """Each transposed convolution parts the folded logits of a place among the four places it becomes.

    The first also mixes the readings; a place of the small one speaks for four of the finer.
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
    """The first four outputs are the signal, its negative, the constant and its negative; no other reads the latter.

    Args:
        signal, constant: weights of inputs at the centre of the kernel.
    """
    layer.weight[:, list(constant)] = 0
    layer.weight[:4] = 0
    for output, inputs in ((0, signal), (2, constant)):
        for channel, weight in inputs.items():
            _centre(layer.weight)[output, channel] = weight
            _centre(layer.weight)[output + 1, channel] = -weight


def _centre(kernel: Tensor) -> Tensor:
    return kernel[:, :, kernel.shape[2] // 2, kernel.shape[3] // 2]
