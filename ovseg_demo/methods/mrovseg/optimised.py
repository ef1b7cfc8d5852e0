"""MROVSeg's layers for inference: the same functions, products in a given precision, sums in float32."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.mrovseg.mask_decoder import MLP, Doubling, unfold
from ovseg_demo.methods.mrovseg.model import MROVSeg
from ovseg_demo.methods.mrovseg.slices import resize_map
from ovseg_demo.models.clip.optimised import Precision, optimise
from ovseg_demo.runtime.fused_layers import fused_linear


def optimise_model(model: MROVSeg, precision: Precision) -> None:
    """Replace the layers of a model, in place, by faster ones.

    Args:
        model: in evaluation mode, without gradients.
        precision: of the linear layers.
    """
    dtype = getattr(torch, precision)
    optimise(model.clip_visual, precision)
    optimise(model.adapter, precision)
    for name in ("up1", "up2"):
        setattr(model.hier, name, OptimisedDoubling(getattr(model.hier, name), dtype))
    mlps = {"mlp_q": OptimisedMLP, "mlp_pix": OptimisedPairMLP, "mlp_global": OptimisedMLP, "mlp_local": OptimisedMLP}
    for name, kind in mlps.items():
        if hasattr(model, name):
            setattr(model, name, kind(getattr(model, name), dtype))
    _replace_linear_layers(model.mrf, dtype)


class OptimisedLinear(nn.Module):
    """A linear layer from and to float32 that multiplies in another precision.

    Args:
        linear: the original.
        dtype: of the product.
    """

    def __init__(self, linear: nn.Linear, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self.layer = fused_linear(linear.weight, linear.bias, dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.to(self._dtype)).float()


class OptimisedMLP(nn.Module):
    """`MLP`, with ReLU as a part of the products. Its output is float32."""

    def __init__(self, mlp: MLP, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        self.layers = _with_relu(mlp.linear_layers(), dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x.to(self._dtype)).float()


class OptimisedPairMLP(nn.Module):
    """`MLP.of_pair`, for maps of equally many channels. Its output is float32."""

    def __init__(self, mlp: MLP, dtype: torch.dtype) -> None:
        super().__init__()
        first, *rest = mlp.linear_layers()
        of_fine, of_coarse = first.weight.chunk(2, 1)
        self._dtype = dtype
        self.of_fine = fused_linear(of_fine.clone(), first.bias, dtype)
        self.of_coarse = fused_linear(of_coarse.clone(), None, dtype)
        self.rest = _with_relu(rest, dtype)

    def of_pair(self, fine: Tensor, coarse: Tensor) -> Tensor:
        added = resize_map(self.of_coarse(coarse.to(self._dtype)).float(), (fine.shape[1], fine.shape[2]))
        first = F.relu(self.of_fine(fine.to(self._dtype)).float().add_(added))
        return self.rest(first.to(self._dtype)).float()


class OptimisedDoubling(nn.Module):
    """`Doubling`, whose map is normalised where it lies before it is taken apart to four places."""

    def __init__(self, doubling: Doubling, dtype: torch.dtype) -> None:
        super().__init__()
        self._dtype = dtype
        (of_x, bias), of_skip = doubling.as_linear()
        self.of_x, self.of_skip = fused_linear(of_x.clone(), bias, dtype), fused_linear(of_skip.clone(), None, dtype)
        self.norm, self.act = doubling.norm, doubling.act

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        added = resize_map(self.of_skip(skip.to(self._dtype)).float(), (x.shape[1], x.shape[2]))
        found = self.of_x(x.to(self._dtype)).float().add_(added).unflatten(3, (4, -1))
        return unfold(self.act(self.norm(found)).flatten(3))


def _with_relu(layers: Sequence[nn.Linear], dtype: torch.dtype) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    *inner, last = layers
    return nn.Sequential(
        *(fused_linear(each.weight, each.bias, dtype, nn.ReLU()) for each in inner),
        fused_linear(last.weight, last.bias, dtype),
    )


def _replace_linear_layers(module: nn.Module, dtype: torch.dtype) -> None:
    for name, child in module.named_children():
        if isinstance(child, nn.Linear):
            setattr(module, name, OptimisedLinear(child, dtype))
        else:
            _replace_linear_layers(child, dtype)
