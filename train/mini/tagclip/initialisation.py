"""Initial weights of the model: its mask logits are scaled cosines of places and texts, as in the mini model.

So the decoder starts with the open vocabulary of the mini model. Random decoders do not learn from a few hundred
photos: after 400 steps they segment no class at all (docs/training.md). At first the texts pass every layer unchanged,
because the last layer of every residual branch is zero, and the last layer multiplies them with the places.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ovseg_demo.methods.tagclip.mini import MiniTagCLIPModel
from ovseg_demo.models.mini.anchors import LOGIT_SCALE, Anchors
from ovseg_demo.weights import loading

GAIN = 7.0
"""Factor on the queries and on the keys; with it mask logits are 20 times the cosine."""


@torch.no_grad()
def initialise_model(model: MiniTagCLIPModel) -> None:
    """Set the weights of a model, which are random before, so that mask logits are scaled cosines."""
    model.adapter.get_buffer("anchor_projection").copy_(anchor_projection())
    decoder: Any = model.decoder  # its layers have no static types
    width = decoder.descriptor.out_features
    for layer in (decoder.descriptor, decoder.masks.query, decoder.masks.key):
        nn.init.zeros_(layer.bias)
    decoder.descriptor.weight.copy_(torch.cat([torch.zeros(width, width), torch.eye(width)], 1))
    branch_ends = [end for layer in decoder.layers for end in (layer.out, layer.fc2)]
    for end in branch_ends if decoder.learner is None else [*branch_ends, decoder.learner.out]:
        nn.init.zeros_(end.weight)
        nn.init.zeros_(end.bias)
    for layer in (decoder.masks.query, decoder.masks.key):
        layer.weight.copy_(GAIN * torch.eye(width))


def anchor_projection() -> Tensor:
    """The matrix (A, D) from anchor weights of a kernel regression to the vector of the linear regression.

    With E the anchors' unit vectors (A, D), K the Gaussian kernel between them and s the scores of the anchors, the
    weights of the kernel ridge regression are w = s (K + 1)⁻¹, and the linear ridge regression of s has the value
    s (E Eᵀ + 1)⁻¹ E t at a text t. So the vector of the linear regression is w (K + 1) (E Eᵀ + 1)⁻¹ E.
    """
    embeddings = loading.load_state_dict("mini-anchors")["embeddings"].float()
    one = torch.eye(len(embeddings))
    kernel = Anchors("cpu").logits(one, embeddings) / LOGIT_SCALE
    return (kernel + one) @ torch.linalg.solve(embeddings @ embeddings.T + one, embeddings)
