"""Train "MROVSeg (mini)": fusion of slices and global view, and queries, on the frozen bundled mini model.

    python -m train.mini.mrovseg --data DIR --out runs/mrovseg-mini           one process, on the GPU if there is one
    torchrun --nproc_per_node 2 -m train.mini.mrovseg --data DIR ...          several
    python -m train.mini.mrovseg --data DIR --out runs/smoke --smoke          everything on a few photos, in a minute

DIR holds folders NAME_train with images/, masks/ and classes.json; held-out photos are left out. Three stages, each of
which is resumed where it was interrupted: an out-of-fold dense head (`train.mini.cross_fitting`), the features of
photos that did not train this head, and the training. `ovseg_demo.methods.mrovseg.mini` loads
OUT/mrovseg-mini.safetensors.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save

from ovseg_demo.methods.mrovseg.mini import LONGEST
from ovseg_demo.methods.mrovseg.mini_model import MiniMROVSegModel
from ovseg_demo.models.mini.heads import Heads
from ovseg_demo.models.mini.model import MiniModel
from ovseg_demo.models.mini.towers import TextTower
from ovseg_demo.weights.loading import load_for_inference
from train.common import command, image_sets
from train.common.image_sets import LabelledSet
from train.common.labelled_batches import training_class_names
from train.common.loop import fit
from train.common.run_folder import RunFolder
from train.common.schedule import Schedule
from train.mini import cross_fitting
from train.mini.conversion import half_precision
from train.mini.lexicon import Lexicon
from train.mini.mrovseg.batches import BatchSizes, ViewBatches
from train.mini.mrovseg.training import MROVSegMiniTraining
from train.mini.mrovseg.two_resolution_views import TwoResolutionViews
from train.mini.weight_interpolation import interpolate_weights

FILE = "mrovseg-mini.safetensors"
PHOTOS = 80
"""At most so many photos of each set, for time; the first by name."""
SCHEDULE = Schedule(steps=500, learning_rate=4e-4, warmup=50, averaging=0.99, save_every=50)
RATES = {"model.dense.out": 0.1, "model.queries.key": 0.3}
SHARE = 0.7
"""Weight of the trained model in the interpolation with the model before training."""
SMOKE_PHOTOS = 3


@dataclass(frozen=True)
class MROVSegMiniConfig:
    """Everything that decides the weights, except the share of the interpolation."""

    photos: dict[str, int]
    out_of_fold: cross_fitting.OutOfFoldRecipe
    schedule: Schedule
    sizes: BatchSizes
    longest: tuple[int, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return command.run_command(lambda state: _run(parsed, state))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.mini.mrovseg", description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds the sets, folders NAME_train")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    cross_fitting.add_windows_argument(parser)
    parser.add_argument("--steps", type=int, metavar="N", help=f"default: {SCHEDULE.steps}")
    parser.add_argument("--share", type=float, default=SHARE, metavar="S", help="of the trained weights; %(default)s")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no", help="default: no (float32)")
    parser.add_argument("--smoke", action="store_true", help="a few photos and steps, to see that all of it runs")
    return parser


def _run(arguments: argparse.Namespace, state: PartialState) -> int:
    labelled, _ = image_sets.find_sets(arguments.data, SMOKE_PHOTOS if arguments.smoke else None)
    config = _config(arguments, {source.name: len(source.dataset) for source in labelled})
    folder = RunFolder(arguments.out, asdict(config))
    if state.is_main_process:
        print(folder.text())
    device = command.device_of(state)
    words = [name for source in labelled for name in training_class_names(source)]
    lexicon = Lexicon(words, TextTower(device), restricted=False)
    heads = cross_fitting.train_out_of_fold_heads(
        labelled, lexicon, config.out_of_fold, folder, arguments.windows, state
    )
    others = [_first_photos(source) for source in cross_fitting.split_half(labelled, head=False)]
    torch.manual_seed(config.schedule.seed)
    model = MiniMROVSegModel()
    start_from_dense_head(model, load_for_inference(Heads(), heads))
    initial = {name: value.clone() for name, value in model.state_dict().items()}
    with state.main_process_first():
        views_folder = RunFolder(folder.path / "views", {"photos": config.photos, "longest": config.longest})
        views = TwoResolutionViews(others, MiniModel(device), model.dense.to(device), config.longest, views_folder)
    trained = fit(
        MROVSegMiniTraining(model), ViewBatches(others, views, lexicon, config.sizes), config.schedule, folder, RATES
    )
    if state.is_main_process:
        weights = interpolate_weights(initial, trained.model.state_dict(), arguments.share)
        folder.replace(FILE, lambda file: file.write(save(half_precision(weights))))
        command.print_file_record(folder.path / FILE)
    return 0


def start_from_dense_head(model: MiniMROVSegModel, heads: Heads) -> None:
    """Give a new model the weights of the dense head of `heads`, with its mean embedding and scale."""
    model.dense.load_state_dict(heads.dense.state_dict())
    model.mean.copy_(heads.dense_mean)
    model.scale.copy_(heads.dense_scale)


def _config(arguments: argparse.Namespace, photos: dict[str, int]) -> MROVSegMiniConfig:
    schedule = SCHEDULE if arguments.steps is None else SCHEDULE.shortened(arguments.steps)
    schedule = replace(schedule, seed=arguments.seed, precision=arguments.precision)
    out_of_fold = cross_fitting.recipe_of(arguments.seed, arguments.precision, arguments.smoke)
    if not arguments.smoke:
        return MROVSegMiniConfig(photos, out_of_fold, schedule, BatchSizes(), LONGEST)
    short = replace(schedule, steps=4, warmup=1, save_every=2, log_every=2)
    return MROVSegMiniConfig(photos, out_of_fold, short, BatchSizes(photos=2, distractors=5), longest=(64, 96))


def _first_photos(source: LabelledSet) -> LabelledSet:
    """The first PHOTOS photos of a set, by name."""
    return replace(source, dataset=replace(source.dataset, samples=source.dataset.samples[:PHOTOS]))


if __name__ == "__main__":
    sys.exit(main())
