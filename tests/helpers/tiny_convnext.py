"""CLIPs with a ConvNeXt of a few layers, with either head, under names of their own."""

import json
from pathlib import Path

import open_clip
import torch

HEADS = {"linear": "tiny-convnext-linear", "mlp": "tiny-convnext-mlp"}
"""Architectures by the head of the image tower, as ConvNeXt-B's and -L's."""

WIDTH = 16


def register(folder: Path) -> None:
    """Let open_clip know the architectures."""
    for head, architecture in HEADS.items():
        path = folder / f"{architecture}.json"
        path.write_text(json.dumps(_config(head)))
        open_clip.add_model_config(path)


def stock(head: str) -> open_clip.CLIP:
    """open_clip's own model, with random weights of which every layer changes the result."""
    torch.manual_seed(0)
    model = open_clip.CLIP(**_config(head)).eval()
    for name, value in model.visual.named_parameters():
        if name.endswith("gamma"):
            torch.nn.init.uniform_(value, 0.2, 0.5)
        elif value.ndim == 1:
            torch.nn.init.normal_(value, mean=float(name.endswith("weight")), std=0.1)
        else:
            torch.nn.init.normal_(value, std=value[0].numel() ** -0.5)
    return model


def _config(head: str) -> dict:
    return {
        "embed_dim": WIDTH,
        "vision_cfg": {"timm_model_name": "test_convnext", "timm_pool": "", "timm_proj": head, "image_size": 64},
        "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
    }
