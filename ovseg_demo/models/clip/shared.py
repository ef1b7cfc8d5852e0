"""CLIPs as region classifiers, loaded once for all methods that use them; importing this module loads nothing."""

from typing import TYPE_CHECKING

from ovseg_demo.runtime.shared_models import SharedModels

if TYPE_CHECKING:
    from ovseg_demo.models.clip.region_classifier import ClipRegionClassifier


def shared_region_classifier(models: SharedModels, architecture: str, checkpoint_id: str) -> "ClipRegionClassifier":
    """A CLIP that classifies masked regions.

    Args:
        models: holds the loaded models.
        architecture: open_clip model name, see `ClipRegionClassifier`.
        checkpoint_id: catalogue id of its weights.

    Raises CheckpointError when the weights are missing, damaged or do not fit.
    """
    from ovseg_demo.models.clip.region_classifier import ClipRegionClassifier

    return models.get(
        "region classifier", checkpoint_id, lambda: ClipRegionClassifier(architecture, checkpoint_id, models.device)
    )
