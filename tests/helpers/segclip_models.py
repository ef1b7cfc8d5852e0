"""A SegCLIP small enough for tests, under the published names, with weights that follow from those names alone."""

import json
from pathlib import Path

import open_clip
import torch
from torch import Tensor

from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.methods.segclip.checkpoint import ReleasedModel, join_checkpoint
from ovseg_demo.methods.segclip.model import build_empty_segclip
from ovseg_demo.methods.segclip.reconstruction import reconstruction_branch
from tests.helpers.oracle import fixture, weights

ARCHITECTURE = "tiny-segclip-quickgelu"
PATCH, SIDE, WIDTH, EMBEDDING = 8, 48, 128, 16
"""In place of 16 and 224 pixels, 768 and 512 channels of the published model. Its twelve blocks stay."""

_CONFIG = {
    "embed_dim": EMBEDDING,
    "quick_gelu": True,
    "vision_cfg": {"image_size": SIDE, "layers": 12, "width": WIDTH, "patch_size": PATCH},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 2},
}


def register(folder: Path) -> None:
    """Let open_clip know the architecture."""
    path = folder / f"{ARCHITECTURE}.json"
    path.write_text(json.dumps(_CONFIG))
    open_clip.add_model_config(path)


def published() -> dict[str, Tensor]:
    """The tensors of a file. The architecture must be registered."""
    clip, tower = build_empty_segclip(ARCHITECTURE)
    branch = reconstruction_branch(tower)
    state = join_checkpoint(ReleasedModel(clip.state_dict(), branch.state_dict()))
    made = weights({name: tuple(tensor.shape) for name, tensor in state.items()})
    made["vis_mae_decoder.decoder_pos_embed"] = branch.decoder.positions
    made["clip.logit_scale"] = torch.tensor(4.7)  # more than 100 after exp
    return made


def classes(count: int) -> ClassTextEmbeddings:
    """The embeddings by which the fixture's classes are told apart, of so many of its seven classes."""
    embeddings = torch.tensor(fixture("segclip.json")["classes"][:count])
    return ClassTextEmbeddings(embeddings, torch.arange(count))
