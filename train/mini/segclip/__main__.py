"""Train "SegCLIP (mini)": regions that form themselves on the mini model's frozen image tower, from captions alone.

    python -m train.mini.segclip --data DIR --out runs/segclip-mini                  on the GPU if there is one
    python -m train.mini.segclip --data DIR --out runs/ablation --variant contrastive --seed 1
    python -m train.mini.segclip --data DIR --out runs/smoke --smoke                 everything on a few photos

DIR holds folders NAME_train with images/ and captions.json; neither masks nor tags are read. Features of the photos are
computed once and kept in OUT/views, or where --views says, so that several runs can share them. Both stages go on where
they were interrupted. `ovseg_demo.methods.segclip.mini` loads OUT/segclip-mini.safetensors; its line for the catalogue
is printed at the end.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save
from torch import Tensor

from eval.datasets.base import DatasetError
from ovseg_demo.methods.segclip.mini_model import MiniGroupingTower
from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.towers import ImageTower, TextTower
from train.common import command, image_sets
from train.common.feature_cache import FeatureCache
from train.common.loop import fit
from train.common.run_folder import RunFolder
from train.common.schedule import Schedule
from train.mini.conversion import half_precision
from train.mini.segclip import captioned_features
from train.mini.segclip.batches import CaptionedBatches
from train.mini.segclip.captioned_features import GRID, CaptionedFeatures, PhotoEncoder
from train.mini.segclip.training import Losses, SegCLIPMiniTraining, mean_embedding
from train.mini.tagclip.initialisation import anchor_projection

FILE = "segclip-mini.safetensors"
SCHEDULE = Schedule(steps=300, learning_rate=1e-3, warmup=20, averaging=0.98, save_every=25)
BATCH = 64
VIEWS = 1
MEAN_SHARE = 0.5
"""Share of the mean embedding of training photos that is subtracted from embeddings."""

SMOKE_PHOTOS = 6


@dataclass(frozen=True)
class Variant:
    """What is trained.

    Attributes:
        anchored: whether embeddings are a learned residual on what the untrained anchors say.
        rate: factor on the learning rate of the projection. Beside the anchors it begins as zero, so that they say all;
            at the full rate it would outweigh them after twenty steps, before regions have formed.
        kept: share of the learned projection that is kept, so that words which captions lack keep what the anchors say.
        losses: of the training.
    """

    anchored: bool = True
    rate: float = 0.1
    kept: float = 0.25
    losses: Losses = field(default_factory=Losses)


VARIANTS = {
    "shipped": Variant(),
    "no-reconstruction": Variant(losses=Losses(reconstruction=0)),
    "no-superpixels": Variant(losses=Losses(superpixels=0)),
    "contrastive": Variant(losses=Losses(reconstruction=0, superpixels=0)),
    "projection": Variant(anchored=False, rate=1.0, kept=1.0),
}
"""The bundled model, its ablations, and the model without the anchors."""


@dataclass(frozen=True)
class SegCLIPMiniConfig:
    """Everything that decides the weights."""

    photos: dict[str, int]
    variant: Variant
    views: int
    batch: int
    schedule: Schedule


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return command.run_command(lambda state: _run(parsed, state))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.mini.segclip", description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds the sets, folders NAME_train")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--views", type=Path, metavar="DIR", help="folder of the features (default: OUT/views)")
    parser.add_argument("--variant", choices=list(VARIANTS), default="shipped", help="default: %(default)s")
    parser.add_argument("--steps", type=int, metavar="N", help=f"instead of {SCHEDULE.steps}")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no", help="default: no (float32)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--smoke", action="store_true", help="a few photos and steps, to see that all of it runs")
    return parser


def _run(arguments: argparse.Namespace, state: PartialState) -> int:
    limit = SMOKE_PHOTOS if arguments.smoke else None
    sets = image_sets.described_sets(arguments.data, limit, ("captions",))
    if not sets:
        raise DatasetError(f"{arguments.data} holds no folder NAME_train with images/ and captions.json to learn from.")
    config = _config(arguments, {source.name: len(source.photos) for source in sets})
    folder = RunFolder(arguments.out, asdict(config))
    if state.is_main_process:
        print(folder.text())
    projection = anchor_projection()
    views_folder = RunFolder(arguments.views or arguments.out / "views", {"photos": config.photos})
    with state.main_process_first():
        views = _encode_views(sets, config.views, projection, views_folder, command.device_of(state))
    torch.manual_seed(config.schedule.seed)
    tower = MiniGroupingTower(config.variant.anchored)
    tower.anchor_projection.copy_(projection)
    training = SegCLIPMiniTraining(tower, GRID * GRID, config.variant.losses)
    fit(
        training,
        CaptionedBatches(views, config.batch),
        config.schedule,
        folder,
        {"tower.projection": config.variant.rate},
    )
    if state.is_main_process:
        tower.projection.weight.data *= config.variant.kept
        tower.mean.copy_(MEAN_SHARE * mean_embedding(tower, views[0]))
        folder.replace(FILE, lambda file: file.write(save(half_precision(tower.state_dict()))))
        command.print_file_record(folder.path / FILE)
    return 0


def _config(arguments: argparse.Namespace, photos: dict[str, int]) -> SegCLIPMiniConfig:
    schedule = SCHEDULE if arguments.steps is None else SCHEDULE.shortened(arguments.steps)
    schedule = replace(schedule, seed=arguments.seed, precision=arguments.precision)
    config = SegCLIPMiniConfig(photos, VARIANTS[arguments.variant], VIEWS, BATCH, schedule)
    if not arguments.smoke:
        return config
    short = replace(schedule, steps=4, warmup=1, save_every=2, log_every=2)
    return replace(config, views=2, batch=4, schedule=short)


def _encode_views(
    sets: Sequence[image_sets.DescribedSet], count: int, projection: Tensor, folder: RunFolder, device: torch.device
) -> list[CaptionedFeatures]:
    """So many views of the photos of all sets."""
    cache = FeatureCache(folder, captioned_features.TENSORS)
    encoder = PhotoEncoder(ImageTower(device), TextTower(device), Anchors(device), projection, cache)
    return [captioned_features.join([encoder.encode(source, view) for source in sets]) for view in range(count)]


if __name__ == "__main__":
    sys.exit(main())
