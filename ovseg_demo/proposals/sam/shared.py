"""MobileSAM, loaded once for all methods that use it; importing this module loads nothing."""

from typing import TYPE_CHECKING

from ovseg_demo.runtime.shared_models import SharedModels

if TYPE_CHECKING:
    from ovseg_demo.proposals.sam.mask_generator import SamMaskGenerator


def shared_sam_generators(models: SharedModels) -> dict[str, "SamMaskGenerator"]:
    """Mask generators that share one MobileSAM, by the name of their search setting.

    Args:
        models: holds the loaded models.

    Raises CheckpointError when the weights are missing or damaged.
    """
    from ovseg_demo.proposals.sam.mask_generator import SETTINGS, SamMaskGenerator
    from ovseg_demo.proposals.sam.mobile_sam import load_mobile_sam

    def load() -> dict[str, SamMaskGenerator]:
        model = load_mobile_sam(device=models.device)
        return {setting: SamMaskGenerator(model, setting) for setting in SETTINGS}

    return models.get("mask generators", "mobile-sam", load)
