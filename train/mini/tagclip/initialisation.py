"""The model as it begins: its masks are the cosines of places and texts, so nothing of the open vocabulary is lost.

Random decoders do not learn from some hundred photos: after 400 steps they find no class at all (docs/training.md).
So texts pass every layer unchanged at first, as every branch beside them ends in zeros, and the last layer multiplies
them with the places.
"""

from typing import Any

import torch
from torch import Tensor, nn

from ovseg_demo.methods.tagclip.mini import MiniTagCLIPModel
from ovseg_demo.models.mini.anchors import LOGIT_SCALE, Anchors
from ovseg_demo.weights import loading

GAIN = 7.0
"""Of queries and of keys; with it the logits of masks are 20 times the cosine."""


@torch.no_grad()
def initialise_model(model: MiniTagCLIPModel) -> None:
    """Lay the path in a model of random weights."""
    model.adapter.get_buffer("anchor_projection").copy_(anchor_projection())
    decoder: Any = model.decoder  # its layers have no static types
    width = decoder.descriptor.out_features
    for layer in (decoder.descriptor, decoder.masks.query, decoder.masks.key):
        nn.init.zeros_(layer.bias)
    decoder.descriptor.weight.copy_(torch.cat([torch.zeros(width, width), torch.eye(width)], 1))
    ends = [end for layer in decoder.layers for end in (layer.out, layer.fc2)]
    for end in ends if decoder.learner is None else [*ends, decoder.learner.out]:
        nn.init.zeros_(end.weight)
        nn.init.zeros_(end.bias)
    for layer in (decoder.masks.query, decoder.masks.key):
        layer.weight.copy_(GAIN * torch.eye(width))


def anchor_projection() -> Tensor:
    """From the weights of the anchors' regression to the vector of the same regression with a linear kernel, (A, D).

    With K the Gaussian kernel between the anchors, which are the rows of E, weights are w = s (K + 1)⁻¹ of the scores
    s; the linear regression of the same scores at a text t is s (E Eᵀ + 1)⁻¹ E t.
    """
    embeddings = loading.load_state_dict("mini-anchors")["embeddings"].float()
    one = torch.eye(len(embeddings))
    kernel = Anchors("cpu").logits(one, embeddings) / LOGIT_SCALE
    return (kernel + one) @ torch.linalg.solve(embeddings @ embeddings.T + one, embeddings)
