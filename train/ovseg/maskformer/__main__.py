"""Train MaskFormer against the texts of CLIP.

    python -m train.ovseg.maskformer --data DIR --out runs/maskformer --init R-103.pkl  one process, on the GPU if any
    torchrun --nproc_per_node 8 -m train.ovseg.maskformer --data DIR ...            several
    torchrun --nnodes 4 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:29500 -m train.ovseg.maskformer ...
                                                                              several hosts, the same command on each
    accelerate launch --multi_gpu --num_processes 8 -m train.ovseg.maskformer ...   several, by accelerate
    python -m train.ovseg.maskformer --data DIR --out runs/smoke --smoke            a tiny model, in a minute

DIR holds folders NAME_train with images/, masks/ and classes.json, each with a vocabulary of its own; or, with
--dataset coco_stuff_171_train, COCO-Stuff as Detectron2 keeps it. A run that was interrupted goes on by the same
command. OUT/maskformer.safetensors has the tensors of an OVSeg file less those of CLIP;
`train.ovseg.maskformer.evaluate` measures it.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState

from train.common import command, labelled_batches
from train.common.loop import fit
from train.common.run_folder import RunFolder, TrainingError
from train.common.settings import check_at_least, describe_file, describe_weights
from train.ovseg.maskformer import recipes
from train.ovseg.maskformer.class_embeddings import create_class_embedder
from train.ovseg.maskformer.initial_weights import initialise
from train.ovseg.maskformer.recipes import RECIPES, MaskFormerRecipe
from train.ovseg.maskformer.trained_model import FILE, save_maskformer
from train.ovseg.maskformer.training import MaskFormerTraining, decays

SMOKE_PHOTOS = 8


@dataclass(frozen=True)
class MaskFormerConfig:
    """Everything that decides the weights."""

    recipe: MaskFormerRecipe
    init: str | None
    photos: dict[str, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return command.run_command(lambda state: _run(parsed, state))


def _parser() -> argparse.ArgumentParser:
    parser = command.labelled_argument_parser("train.ovseg.maskformer", str(__doc__).splitlines()[0])
    parser.add_argument("--backbone", choices=RECIPES, default="r101c", help="and its recipe (default: %(default)s)")
    parser.add_argument("--clip", metavar="ID|FILE", help="whose texts: an id of the catalogue, a file, or mini")
    parser.add_argument("--init", type=Path, metavar="FILE", help="weights of the backbone, or of all, to begin with")
    parser.add_argument(
        "--smoke", action="store_true", help="a tiny model, a few photos and steps, the mini model's texts"
    )
    return parser


def _run(arguments: argparse.Namespace, state: PartialState) -> int:
    recipe = _recipe(arguments)
    check_at_least(1, batch=recipe.batch)
    check_at_least(0, workers=arguments.workers)
    if recipe.frozen and arguments.init is None and not arguments.smoke:
        raise TrainingError(
            f"{arguments.backbone} begins with trained weights, for its batch norms learn nothing; give --init."
        )
    share = command.per_process_batch(recipe.batch, state.num_processes)
    sets = labelled_batches.find_labelled_sets(
        arguments.data, arguments.dataset, SMOKE_PHOTOS if arguments.smoke else None
    )
    config = MaskFormerConfig(
        replace(recipe, clip=describe_weights(recipe.clip)),
        arguments.init and describe_file(arguments.init),
        {source.name: len(source.dataset) for source in sets},
    )
    training = _training(recipe, sets, arguments.init, command.device_of(state))
    folder = RunFolder(arguments.out, asdict(config))
    if state.is_main_process:
        print(folder.text())
    trained = fit(
        training,
        labelled_batches.LabelledBatches(sets, recipe.views, share),
        recipe.schedule,
        folder,
        rates={"model.backbone": recipe.backbone_rate},
        decays=decays(training),
        workers=arguments.workers,
        title="MaskFormer",
    )
    if state.is_main_process:
        save_maskformer(folder, trained, recipe)
        command.print_file_record(folder.path / FILE)
    return 0


def _recipe(arguments: argparse.Namespace) -> MaskFormerRecipe:
    recipe = RECIPES[arguments.backbone]
    recipe = recipes.shortened(recipes.smoke(recipe) if arguments.smoke else recipe, arguments.steps, arguments.batch)
    recipe = replace(recipe, clip=arguments.clip or recipe.clip)
    return replace(recipe, schedule=replace(recipe.schedule, seed=arguments.seed, precision=arguments.precision))


def _training(
    recipe: MaskFormerRecipe, sets: Sequence[labelled_batches.LabelledSet], init: Path | None, device: torch.device
) -> MaskFormerTraining:
    """The model with its initial weights, and its losses."""
    embed = create_class_embedder(recipe.clip, device)
    texts = [embed(labelled_batches.training_class_names(source)) for source in sets]
    torch.manual_seed(recipe.schedule.seed)
    training = MaskFormerTraining(recipe.architecture.build(texts[0].shape[1]), texts)
    if init is not None:
        initialise(training.model, init)
        for part in recipe.frozen:  # frozen only where trained weights are given
            training.model.backbone.get_submodule(part).requires_grad_(False)
    return training


if __name__ == "__main__":
    sys.exit(main())
