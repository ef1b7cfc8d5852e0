"""Generators of class-agnostic mask proposals by name: MobileSAM, or a MaskFormer."""

from pathlib import Path

import torch

from ovseg_demo.methods.ovseg import maskformer
from ovseg_demo.methods.ovseg.maskformer import MaskFormerProposals
from ovseg_demo.proposals.base import ProposalGenerator
from ovseg_demo.proposals.maskformer import checkpoint
from ovseg_demo.proposals.maskformer.predictor import MaskFormerPredictor
from ovseg_demo.proposals.sam import mobile_sam
from ovseg_demo.proposals.sam.mask_generator import SETTINGS, SamMaskGenerator
from ovseg_demo.weights import catalogue, loading
from train.common.settings import describe_weights
from train.ovseg.maskformer import trained_model

HELP = f"{', '.join(SETTINGS)} (MobileSAM), or a MaskFormer: OVSeg's catalogue id, or what train.ovseg.maskformer wrote"

THRESHOLD = 0.5
"""Mask probability from which a pixel belongs to a MaskFormer's mask."""


def create_proposal_generator(name: str, device: torch.device) -> ProposalGenerator:
    """MobileSAM with a search setting, a MaskFormer of a released OVSeg file, or one trained by this package.

    Args:
        name: a key of SETTINGS, an id of the catalogue, or the path of a file of `train.ovseg.maskformer`.
        device: where the model runs.

    Raises:
        CheckpointError: when the file is missing, damaged or of another kind.
    """
    if name in SETTINGS:
        return SamMaskGenerator(mobile_sam.load_mobile_sam(device=device), name)
    generator_name = f"maskformer-{describe_weights(name)}"
    predictor = _released(name, device) if name in catalogue.entries() else _trained(Path(name), device)
    return MaskFormerProposals(predictor, generator_name, THRESHOLD)


def _released(checkpoint_id: str, device: torch.device) -> MaskFormerPredictor:
    return maskformer.create_predictor(
        checkpoint.split_checkpoint(loading.load_state_dict(checkpoint_id), checkpoint_id), device
    )


def _trained(path: Path, device: torch.device) -> MaskFormerPredictor:
    trained = trained_model.load_trained_maskformer(path)
    return MaskFormerPredictor(trained.model.to(device), trained.shortest, trained.longest)
