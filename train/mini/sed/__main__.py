"""Train "SED (mini)": SED's decoder on the cost maps of the bundled mini model.

    python -m train.mini.sed --data DIR --out runs/sed-mini                  one process, on the GPU if there is one
    torchrun --nproc_per_node 2 -m train.mini.sed --data DIR ...             several
    python -m train.mini.sed --data DIR --out runs/smoke --smoke             everything on a few photos, in a minute

DIR holds folders NAME_train with images/, masks/ and classes.json; held-out photos are left out. Three stages, each of
which is resumed where it was interrupted: an out-of-fold dense head (`train.mini.cross_fitting`), the features of
the photos that did not train this head, and the decoder. `ovseg_demo.methods.sed.mini` loads OUT/sed-mini.safetensors;
its line for the catalogue is printed at the end.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save

from ovseg_demo.methods.sed.decoder import Decoder
from ovseg_demo.methods.sed.mini import DECODER_SIZES, MiniCostMaps
from ovseg_demo.models.mini.model import MiniModel
from ovseg_demo.models.mini.towers import TextTower
from ovseg_demo.weights.catalogue import sha256_of
from train.common import command, image_sets
from train.common.labelled_batches import training_class_names
from train.common.loop import fit
from train.common.run_folder import RunFolder
from train.common.schedule import Schedule
from train.mini import cross_fitting
from train.mini.conversion import half_precision
from train.mini.lexicon import Lexicon
from train.mini.sed import batches, initialisation
from train.mini.sed.multi_scale_views import MultiScaleViews
from train.mini.sed.training import SEDMiniTraining
from train.mini.weight_interpolation import interpolate_weights

FILE = "sed-mini.safetensors"
DECODER = Schedule(steps=2000, learning_rate=4e-4, warmup=100, averaging=0.995, save_every=50)
SHARE = 0.4
"""Weight of the trained decoder in the interpolation with the decoder before training."""

SMOKE_PHOTOS = 6


@dataclass(frozen=True)
class SEDMiniConfig:
    """Everything that decides the weights."""

    photos: dict[str, int]
    out_of_fold: cross_fitting.OutOfFoldRecipe
    schedule: Schedule
    sizes: batches.BatchSizes
    share: float = SHARE


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return command.run_command(lambda state: _run(parsed, state))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.mini.sed", description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds the sets, folders NAME_train")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    cross_fitting.add_windows_argument(parser)
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
    words = [name for source in labelled for name in training_class_names(source)]
    lexicon = Lexicon(words, TextTower(command.device_of(state)), restricted=False)
    heads_path = cross_fitting.train_out_of_fold_heads(
        labelled, lexicon, config.out_of_fold, folder, arguments.windows, state
    )
    vlm = MiniModel(command.device_of(state), heads_path)
    decoder_sets = cross_fitting.split_half(labelled, head=False)
    with state.main_process_first():
        views = MultiScaleViews(decoder_sets, vlm, RunFolder(folder.path / "views", {"photos": config.photos}))
    cost_map_batches = batches.CostMapBatches(decoder_sets, views, lexicon, MiniCostMaps(vlm), config.sizes)
    torch.manual_seed(config.schedule.seed)
    decoder = Decoder(DECODER_SIZES)
    initialisation.initialise_decoder(decoder)
    initial = {name: value.clone() for name, value in decoder.state_dict().items()}
    stage = RunFolder(folder.path / "decoder", asdict(config.schedule))
    trained = fit(SEDMiniTraining(decoder), cost_map_batches, config.schedule, stage, title="decoder")
    if state.is_main_process:
        folder.replace(
            FILE,
            lambda file: file.write(
                save(half_precision(interpolate_weights(initial, trained.decoder.state_dict(), config.share)))
            ),
        )
        path = folder.path / FILE
        print(json.dumps({"id": "sed-mini", "sha256": sha256_of(path), "size": path.stat().st_size}))
    return 0


def _config(arguments: argparse.Namespace, photos: dict[str, int]) -> SEDMiniConfig:
    out_of_fold = cross_fitting.recipe_of(arguments.seed, arguments.precision, arguments.smoke)
    schedule = replace(DECODER, seed=arguments.seed, precision=arguments.precision)
    if not arguments.smoke:
        return SEDMiniConfig(photos, out_of_fold, schedule, batches.BatchSizes())
    short = replace(schedule, steps=6, warmup=2, save_every=2, log_every=2)
    return SEDMiniConfig(photos, out_of_fold, short, batches.BatchSizes(views=1, words=(2, 4), distractors=1))


if __name__ == "__main__":
    sys.exit(main())
