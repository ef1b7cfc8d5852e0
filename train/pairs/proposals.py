"""Class-agnostic masks by name: MobileSAM, or a MaskFormer."""

from pathlib import Path

import torch

from ovseg_demo import checkpoints
from ovseg_demo.methods import ovseg_maskformer
from ovseg_demo.methods.ovseg_maskformer import MaskFormerProposals
from ovseg_demo.proposals import maskformer, mobile_sam
from ovseg_demo.proposals.base import ProposalMaker
from ovseg_demo.proposals.maskformer import Reader
from ovseg_demo.proposals.sam import SETTINGS, SamProposals
from train.common.settings import weights
from train.maskformer import files

HELP = f"{', '.join(SETTINGS)} (MobileSAM), or a MaskFormer: OVSeg's catalogue id, or what train.maskformer wrote"

THRESHOLD = 0.5
"""Mask probability from which a pixel belongs to a MaskFormer's mask."""


def load(name: str, device: torch.device) -> ProposalMaker:
    """MobileSAM in a search setting, MaskFormer as an OVSeg file of the catalogue has it, or as it was trained here.

    Raises CheckpointError when a file is missing, damaged or no such model.
    """
    if name in SETTINGS:
        return SamProposals(mobile_sam.load(device=device), name)
    known = f"maskformer-{weights(name)}"
    reader = _released(name, device) if name in checkpoints.catalogue() else _trained(Path(name), device)
    return MaskFormerProposals(reader, known, THRESHOLD)


def _released(checkpoint_id: str, device: torch.device) -> Reader:
    return ovseg_maskformer.reader(maskformer.split(checkpoints.load_state_dict(checkpoint_id), checkpoint_id), device)


def _trained(path: Path, device: torch.device) -> Reader:
    trained = files.load(path)
    return Reader(trained.model.to(device), trained.shortest, trained.longest)
