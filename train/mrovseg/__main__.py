"""Train MROVSeg: masks and their class embeddings from one frozen CLIP that reads a photo whole and in slices.

    python -m train.mrovseg --data DIR --out runs/mrovseg --precision bf16      one process, on the GPU if any
    torchrun --nproc_per_node 2 -m train.mrovseg --data DIR --out runs/mrovseg ...    several
    torchrun --nnodes 2 --nproc_per_node 8 --rdzv_backend c10d --rdzv_endpoint HOST:29500 -m train.mrovseg ...
                                                                              several hosts, the same command on each
    accelerate launch --multi_gpu --num_processes 2 -m train.mrovseg ...        several, by accelerate
    python -m train.mrovseg --data DIR --out runs/baseline --without adapter fusion masked-attention   table 2
    python -m train.mrovseg --data DIR --out runs/smoke --smoke                 a tiny model, in seconds

DIR holds folders NAME_train with images/, masks/ and classes.json, each with a vocabulary of its own; or, with
--dataset coco_stuff_171_train, COCO-Stuff as Detectron2 keeps it. A run that was interrupted goes on by the same
command. OUT/mrovseg.safetensors has what was trained; CLIP stays in its own file.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace

import open_clip
from accelerate import PartialState

from ovseg_demo.methods.mrovseg.model import MROVSeg
from ovseg_demo.models.clip.templates import IMAGENET_TEMPLATES, VILD_TEMPLATES
from ovseg_demo.models.clip.text import embed_words, mean_embeddings
from train.common import command, labelled_batches
from train.common.loop import fit
from train.common.run_folder import RunFolder
from train.common.sampling import BatchSampler
from train.common.settings import check_at_least, describe_weights
from train.mrovseg import fixed_views, initial_model, recipes
from train.mrovseg.recipes import ABLATIONS, RECIPES, TINY, MROVSegRecipe
from train.mrovseg.saving import FILE, save_mrovseg
from train.mrovseg.training import MROVSegTraining, decays

SMOKE_PHOTOS = 8

TEMPLATES = {"vild": VILD_TEMPLATES, "imagenet": IMAGENET_TEMPLATES}


@dataclass(frozen=True)
class MROVSegConfig:
    """Everything that decides the weights."""

    recipe: MROVSegRecipe
    photos: dict[str, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return command.run_command(lambda state: _run(parsed, state))


def _parser() -> argparse.ArgumentParser:
    parser = command.labelled_argument_parser("train.mrovseg", str(__doc__).splitlines()[0])
    parser.add_argument("--size", choices=RECIPES, default="b", help="of CLIP's ViT (default: %(default)s)")
    parser.add_argument("--clip", metavar="ID|FILE", help="the frozen CLIP: an id of the catalogue, or a file")
    parser.add_argument(
        "--without", nargs="+", default=[], choices=ABLATIONS, metavar="PART", help=f"leave out {', '.join(ABLATIONS)}"
    )
    parser.add_argument(
        "--fixed-views",
        action="store_true",
        help="photos as they are, without augmentation; CLIP reads each only once, and its features are kept in OUT",
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
    clip, model = _model(recipe)
    clip, model = clip.to(command.device_of(state)), model.to(command.device_of(state))
    recorded = recipe if arguments.smoke else replace(recipe, clip=describe_weights(recipe.clip))
    config = MROVSegConfig(recorded, {source.name: len(source.dataset) for source in sets})
    folder = RunFolder(arguments.out, asdict(config))
    if state.is_main_process:
        print(folder.text())
    names = [labelled_batches.training_class_names(source) for source in sets]
    texts = [mean_embeddings(embed_words(clip, words, TEMPLATES[recipe.settings.templates])) for words in names]
    training = MROVSegTraining(model, texts, recipe.terms)
    trained = fit(
        training,
        _batches(recipe, model, sets, share, folder, state),
        recipe.schedule,
        folder,
        decays=decays(training),
        workers=arguments.workers,
        title="MROVSeg",
    )
    if state.is_main_process:
        save_mrovseg(folder, clip, trained.model)
        command.print_file_record(folder.path / FILE)
    return 0


def _recipe(arguments: argparse.Namespace) -> MROVSegRecipe:
    recipe = RECIPES[arguments.size]
    recipe = replace(recipe, clip=arguments.clip or recipe.clip, fixed_views=arguments.fixed_views)
    recipe = recipes.without(recipes.smoke(recipe) if arguments.smoke else recipe, arguments.without)
    steps = recipe.schedule.steps if arguments.steps is None else arguments.steps
    schedule = replace(recipe.schedule, steps=steps, seed=arguments.seed, precision=arguments.precision)
    return replace(recipe, schedule=schedule, batch=recipe.batch if arguments.batch is None else arguments.batch)


def _model(recipe: MROVSegRecipe) -> tuple[open_clip.CLIP, MROVSeg]:
    if recipe.clip == TINY:
        return initial_model.tiny_model(recipe.settings, recipe.schedule.seed)
    return initial_model.load_initial_model(recipe.settings, recipe.clip, recipe.schedule.seed)


def _batches(
    recipe: MROVSegRecipe,
    model: MROVSeg,
    sets: Sequence[labelled_batches.LabelledSet],
    share: int,
    folder: RunFolder,
    state: PartialState,
) -> BatchSampler:
    """Batches of so many photos a process: of augmented ones, or of features that are computed here."""
    if not recipe.fixed_views:
        return labelled_batches.LabelledBatches(sets, recipe.views, share)
    cache = fixed_views.feature_cache(RunFolder(folder.path / "features", folder.config), model)
    with state.main_process_first():
        fixed_views.encode_photos(sets, model, recipe.views, recipe.schedule.precision, cache)
    return fixed_views.FixedViews(sets, share, cache)


if __name__ == "__main__":
    sys.exit(main())
