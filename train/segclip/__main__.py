"""Train SegCLIP: patches of a CLIP learn to gather to regions, from captions alone.

    python -m train.segclip --data DIR --out runs/segclip --chunk 96            one process, on the GPU if any
    torchrun --nproc_per_node 8 -m train.segclip --data DIR --out runs/segclip ...    several, as published
    torchrun --nnodes 2 --nproc_per_node 4 --rdzv_backend c10d --rdzv_endpoint HOST:29500 -m train.segclip ...
                                                                                several hosts, the same command on each
    accelerate launch --multi_gpu --num_processes 8 -m train.segclip ...        several, by accelerate
    python -m train.segclip --data DIR --out runs/smoke --smoke                 a tiny model, in seconds

DIR holds folders NAME_train with images/ and captions.json, or with WebDataset shards. A run that was interrupted goes
on by the same command. OUT/segclip.safetensors has the tensors of the released file.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import cast, get_args

import open_clip
import torch
from accelerate import PartialState

from ovseg_demo.methods.segclip.image_tower import GroupingTower
from ovseg_demo.methods.segclip.reconstruction import ReconstructionBranch
from train.common import command
from train.common.loop import fit
from train.common.run_folder import RunFolder
from train.common.schedule import Schedule
from train.common.settings import check_at_least, describe_weights
from train.segclip import initial_model, recipes
from train.segclip.batches import CaptionBatches
from train.segclip.captioned_photos import captioned_sets
from train.segclip.losses import LossForm
from train.segclip.recipes import TINY, SegCLIPRecipe
from train.segclip.saving import FILE, save_segclip
from train.segclip.superpixels import SuperpixelCache
from train.segclip.training import RATES, SegCLIPTraining, decays

SMOKE_PHOTOS, SMOKE_STEPS = 8, 6


@dataclass(frozen=True)
class SegCLIPConfig:
    """Everything that decides the weights."""

    recipe: SegCLIPRecipe
    schedule: Schedule
    captions: dict[str, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return command.run_command(lambda state: _run(parsed, state))


def _parser() -> argparse.ArgumentParser:
    parser = command.recipe_argument_parser("train.segclip", str(__doc__).splitlines()[0])
    parser.add_argument(
        "--recipe",
        choices=get_args(LossForm),
        default="code",
        help="whose settings where they differ: the released code's (default) or the paper's",
    )
    parser.add_argument("--clip", metavar="ID|FILE", help="plain CLIP ViT-B/16 to begin with (default: clip-vit-b16)")
    parser.add_argument(
        "--chunk",
        type=int,
        metavar="N",
        help="embed N photos of a process at a time, twice, to save memory; the batch of the losses stays whole",
    )
    parser.add_argument(
        "--mix-batch",
        action="store_true",
        help="centres attend to patches of all photos that are embedded at once: a mistake of the released code, by "
        "which the published weights were made",
    )
    parser.add_argument(
        "--superpixels", type=Path, metavar="DIR", help="keeps superpixels, also for other runs (OUT/superpixels)"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a tiny random CLIP, whatever --clip, a few photos and steps"
    )
    return parser


def _run(arguments: argparse.Namespace, state: PartialState) -> int:
    recipe = _recipe(arguments)
    check_at_least(1, steps=arguments.steps, batch=recipe.batch, chunk=recipe.chunk)
    check_at_least(0, workers=arguments.workers, seed=arguments.seed)
    share = command.per_process_batch(recipe.batch, state.num_processes)
    sets = captioned_sets(arguments.data, SMOKE_PHOTOS if arguments.smoke else None)
    clip, branch = _model(recipe, arguments.seed)
    tower = cast(GroupingTower, clip.visual)
    tower.group.mixes_batch = recipe.mixes_batch
    superpixels = SuperpixelCache(arguments.superpixels or arguments.out / "superpixels")
    side, patch = tower.image_size[0], tower.patch_size[0]
    batches = CaptionBatches(sets, superpixels, share, side, patch, arguments.seed)
    schedule = _schedule(arguments, batches.steps(state.num_processes))
    config = SegCLIPConfig(
        recipe if arguments.smoke else replace(recipe, clip=describe_weights(recipe.clip)),
        schedule,
        {source.name: len(source) for source in sets},
    )
    folder = RunFolder(arguments.out, asdict(config))
    if state.is_main_process:
        print(folder.text())
    if command.device_of(state).type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as published
    trained = fit(
        SegCLIPTraining(clip, branch, recipe.form, recipe.chunk),
        batches,
        schedule,
        folder,
        rates=RATES,
        decays=decays,
        workers=arguments.workers,
        title="SegCLIP",
    )
    if state.is_main_process:
        save_segclip(folder, trained)
        command.print_file_record(folder.path / FILE)
    return 0


def _recipe(arguments: argparse.Namespace) -> SegCLIPRecipe:
    recipe = SegCLIPRecipe(arguments.recipe, mixes_batch=arguments.mix_batch)
    recipe = recipes.smoke(recipe) if arguments.smoke else replace(recipe, clip=arguments.clip or recipe.clip)
    return replace(
        recipe,
        batch=recipe.batch if arguments.batch is None else arguments.batch,
        chunk=recipe.chunk if arguments.chunk is None else arguments.chunk,
    )


def _model(recipe: SegCLIPRecipe, seed: int) -> tuple[open_clip.CLIP, ReconstructionBranch]:
    if recipe.clip == TINY:
        return initial_model.tiny_model(seed)
    return initial_model.load_initial_model(recipe.clip, seed)


def _schedule(arguments: argparse.Namespace, steps_of_epoch: int) -> Schedule:
    steps = SMOKE_STEPS if arguments.smoke else recipes.EPOCHS * steps_of_epoch
    schedule = recipes.schedule(steps if arguments.steps is None else arguments.steps)
    schedule = replace(schedule, precision=arguments.precision, seed=arguments.seed)
    return replace(schedule, save_every=2, log_every=2) if arguments.smoke else schedule


if __name__ == "__main__":
    sys.exit(main())
