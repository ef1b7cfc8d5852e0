"""Join a trained MaskFormer and an adapted CLIP into one file, as released by OVSeg.

    python -m train.ovseg.maskformer.join_checkpoints --maskformer FILE --clip FILE --out ovseg.safetensors

The MaskFormer is from `train.ovseg.maskformer` with `--backbone r101c` or `swinb`; the CLIP has mask prompts. The
joined file is loaded in the same way as a released file.
"""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save
from torch import Tensor

from eval.journal import write_atomically
from ovseg_demo.errors import CheckpointError, exit_status
from ovseg_demo.methods.ovseg.maskformer import PUBLISHED_SETTINGS
from ovseg_demo.models.clip.mask_prompts import MaskPromptedTower
from ovseg_demo.models.clip.weights import MASK_PROMPTS, clip_state_dict
from ovseg_demo.proposals.maskformer.checkpoint import CLIP_PREFIX, split_checkpoint
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD
from ovseg_demo.weights import loading, reading
from train.common.loss_terms import MASKFORMER

_CLASSES = 171


def join_checkpoints(maskformer: Mapping[str, Tensor], clip: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of an OVSeg file, including tensors of released files that no code reads.

    Args:
        maskformer: state dict of a file that `trained_model.save_maskformer` wrote.
        clip: state dict under OpenAI's names, with mask prompts.

    Raises:
        CheckpointError: when tensors are missing, unexpected or of other shapes than in a released file.
    """
    if MASK_PROMPTS not in clip:
        raise CheckpointError("This CLIP has no mask prompts, which an OVSeg file holds; train them first.")
    losses = torch.ones(_CLASSES + 1)
    losses[-1] = MASKFORMER.void
    state = {
        **maskformer,
        **{CLIP_PREFIX + name: value for name, value in clip.items()},
        "clip_adapter.pixel_mean": torch.tensor(CLIP_MEAN).view(1, 3, 1, 1),
        "clip_adapter.pixel_std": torch.tensor(CLIP_STD).view(1, 3, 1, 1),
        "criterion.empty_weight": losses,
    }
    backbone = split_checkpoint(state, "What was joined").backbone
    loading.check_state_dict(_published_clip(backbone), clip, f"This CLIP is not what OVSeg has beside {backbone}")
    return state


def _published_clip(backbone: str) -> Mapping[str, Tensor]:
    """The tensors, without content, of the CLIP of a released model."""
    config: Any = open_clip.get_model_config(PUBLISHED_SETTINGS[backbone].architecture)
    with torch.device("meta"):
        clip: Any = open_clip.CLIP(**config)
        clip.visual = MaskPromptedTower(clip.visual)
        clip.visual.initialise_prompts()
    return clip.state_dict()


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parser = argparse.ArgumentParser(
        prog="python -m train.ovseg.maskformer.join_checkpoints", description=str(__doc__).splitlines()[0]
    )
    parser.add_argument("--maskformer", type=Path, required=True, metavar="FILE", help="from train.ovseg.maskformer")
    parser.add_argument("--clip", type=Path, required=True, metavar="FILE", help="a CLIP with mask prompts")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a .safetensors file to write")
    return exit_status(lambda: _run(parser.parse_args(arguments)))


def _run(arguments: argparse.Namespace) -> int:
    state = join_checkpoints(
        reading.read_weights(arguments.maskformer), clip_state_dict(reading.read_weights(arguments.clip))
    )
    write_atomically(arguments.out, save({name: value.contiguous() for name, value in state.items()}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
