"""Train SED: the image tower of a hierarchical CLIP, and the decoder on its cost maps.

    python -m train.sed --data DIR --out runs/sed                             one process, on the GPU if any
    torchrun --nproc_per_node 4 -m train.sed --data DIR --out runs/sed ...    several
    torchrun --nnodes 2 --nproc_per_node 2 --rdzv_backend c10d --rdzv_endpoint HOST:29500 -m train.sed ...
                                                                              several hosts, the same command on each
    accelerate launch --multi_gpu --num_processes 4 -m train.sed ...          several, by accelerate
    python -m train.sed --data DIR --out runs/smoke --smoke                   a tiny model, in seconds

DIR holds folders NAME_train with images/, masks/ and classes.json, each with a vocabulary of its own; or, with
--dataset coco_stuff_171_train, COCO-Stuff as Detectron2 keeps it. A run that was interrupted goes on by the same
command. OUT/sed.safetensors has the tensors of a released SED file.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, get_args

import open_clip
import torch
from accelerate import PartialState

from ovseg_demo.methods.sed.decoder import Decoder
from ovseg_demo.models.clip.templates import IMAGENET_TEMPLATES
from ovseg_demo.models.clip.text import embed_words
from train.common import command, labelled_batches
from train.common.loop import fit
from train.common.run_folder import RunFolder
from train.common.settings import check_at_least, describe_weights
from train.sed import initial_model, recipes
from train.sed.losses import IgnoreRule
from train.sed.recipes import RECIPES, TINY, SEDRecipe
from train.sed.saving import FILE, save_sed
from train.sed.training import TOWER, SEDTraining, decays

SMOKE_PHOTOS = 8


@dataclass(frozen=True)
class SEDConfig:
    """Everything that decides the weights."""

    recipe: SEDRecipe
    photos: dict[str, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return command.run_command(lambda state: _run(parsed, state))


def _parser() -> argparse.ArgumentParser:
    parser = command.labelled_argument_parser("train.sed", str(__doc__).splitlines()[0])
    parser.add_argument("--size", choices=RECIPES, default="b", help="of the ConvNeXt (default: %(default)s)")
    parser.add_argument("--clip", metavar="ID|FILE", help="weights to begin with: an id of the catalogue, or a file")
    parser.add_argument(
        "--ignore",
        choices=get_args(IgnoreRule),
        default="zeros",
        help="what unlabelled pixels teach: that no class is there, as published, or nothing (default: %(default)s)",
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a tiny random CLIP, whatever --clip, a few photos and steps"
    )
    return parser


def _run(arguments: argparse.Namespace, state: PartialState) -> int:
    recipe = _recipe(arguments)
    check_at_least(1, batch=recipe.batch)
    check_at_least(0, workers=arguments.workers)
    share = command.per_process_batch(recipe.batch, state.num_processes)
    sets = labelled_batches.find_labelled_sets(
        arguments.data, arguments.dataset, SMOKE_PHOTOS if arguments.smoke else None
    )
    clip = _clip(recipe).to(command.device_of(state))
    recorded = recipe if arguments.smoke else replace(recipe, clip=describe_weights(recipe.clip))
    config = SEDConfig(recorded, {source.name: len(source.dataset) for source in sets})
    folder = RunFolder(arguments.out, asdict(config))
    if state.is_main_process:
        print(folder.text())
    if command.device_of(state).type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as published
    training = _training(recipe, clip, sets)
    trained = fit(
        training,
        labelled_batches.LabelledBatches(sets, recipe.views, share, mixed=False),
        recipe.schedule,
        folder,
        rates={TOWER: recipe.clip_rate},
        decays=decays(training),
        workers=arguments.workers,
        title="SED",
    )
    if state.is_main_process:
        save_sed(folder, clip, trained.decoder)
        command.print_file_record(folder.path / FILE)
    return 0


def _recipe(arguments: argparse.Namespace) -> SEDRecipe:
    recipe = replace(RECIPES[arguments.size], ignore=arguments.ignore)
    recipe = replace(recipe, clip=arguments.clip or recipe.clip)
    recipe = recipes.smoke(recipe) if arguments.smoke else recipe
    steps = recipe.schedule.steps if arguments.steps is None else arguments.steps
    schedule = replace(recipe.schedule, steps=steps, seed=arguments.seed, precision=arguments.precision)
    return replace(recipe, schedule=schedule, batch=recipe.batch if arguments.batch is None else arguments.batch)


def _clip(recipe: SEDRecipe) -> open_clip.CLIP:
    if recipe.architecture == TINY:
        return initial_model.tiny_clip(recipe.schedule.seed)
    return initial_model.load_initial_clip(recipe.architecture, recipe.clip)


def _training(recipe: SEDRecipe, clip: open_clip.CLIP, sets: Sequence[labelled_batches.LabelledSet]) -> SEDTraining:
    """The model with its initial weights, and its losses."""
    texts = [embed_words(clip, labelled_batches.training_class_names(source), IMAGENET_TEMPLATES) for source in sets]
    torch.manual_seed(recipe.schedule.seed)
    tower: Any = clip.visual  # a TimmModel, for the architecture is a ConvNeXt
    return SEDTraining(tower, Decoder(recipe.sizes), texts, recipe.pooling, recipe.ignore)


if __name__ == "__main__":
    sys.exit(main())
