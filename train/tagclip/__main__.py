"""Train TagCLIP or ZegCLIP: prompts of a frozen CLIP, and the decoder that finds the masks of words.

    python -m train.tagclip --data DIR --out runs/tagclip                      one process, on the GPU if any
    torchrun --nproc_per_node 8 -m train.tagclip --data DIR --out runs/tagclip ...    several
    torchrun --nnodes 2 --nproc_per_node 4 --rdzv_backend c10d --rdzv_endpoint HOST:29500 -m train.tagclip ...
                                                                               several hosts, the same command on each
    accelerate launch --multi_gpu --num_processes 8 -m train.tagclip ...       several, by accelerate
    python -m train.tagclip --data DIR --out runs/smoke --like voc --smoke     a tiny model, in seconds

DIR holds folders NAME_train with images/, masks/ and classes.json, each with a vocabulary of its own; or, with
--dataset voc_20_train_aug or coco_stuff_171_train, VOC or COCO-Stuff. A run that was interrupted goes on by the same
command. OUT/tagclip.safetensors has the tensors of a published file that inference uses, and a record of its training.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from itertools import compress
from pathlib import Path
from typing import Any, get_args

import open_clip
import torch
from accelerate import PartialState

from ovseg_demo.methods.tagclip.decoder import Decoder
from ovseg_demo.methods.tagclip.training_info import TEMPLATES, TrainingInfo, class_splits
from ovseg_demo.models.clip.text import embed_words, mean_embeddings
from train.common import command, labelled_batches
from train.common.image_sets import LabelledSet
from train.common.loop import fit
from train.common.run_folder import RunFolder, TrainingError
from train.common.schedule import decay_all_but
from train.common.settings import check_at_least, describe_file, describe_weights
from train.tagclip import initial_model, recipes
from train.tagclip.class_split import hide_unseen, seen_classes
from train.tagclip.losses import LossForm
from train.tagclip.recipes import TINY, Benchmark, ModelName, TagCLIPRecipe, TrainingSetting
from train.tagclip.saving import FILE, save_tagclip
from train.tagclip.training import TagCLIPTraining, UnseenHandling

PROTOCOLS = ("published", "strict")
SMOKE_PHOTOS = 8


@dataclass(frozen=True)
class TagCLIPConfig:
    """Everything that decides the weights."""

    recipe: TagCLIPRecipe
    setting: str
    protocol: str
    unseen: tuple[str, ...]
    photos: dict[str, int]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return command.run_command(lambda state: _run(parsed, state))


def _parser() -> argparse.ArgumentParser:
    parser = command.labelled_argument_parser("train.tagclip", str(__doc__).splitlines()[0])
    parser.add_argument("--model", choices=get_args(ModelName), default="tagclip", help="default: %(default)s")
    parser.add_argument(
        "--setting",
        choices=get_args(TrainingSetting),
        default="inductive",
        help="what is known of unseen classes in training: nothing, their words, or all (default: %(default)s)",
    )
    parser.add_argument(
        "--like",
        choices=get_args(Benchmark),
        help="whose published prompts, steps and unseen classes (default: those of --dataset; coco for folders)",
    )
    parser.add_argument("--unseen", metavar="WORDS", help="classes that are unseen, parted by commas")
    parser.add_argument(
        "--recipe", choices=get_args(LossForm), help="whose losses: the published code's (default) or the paper's"
    )
    parser.add_argument(
        "--protocol",
        choices=PROTOCOLS,
        default=PROTOCOLS[0],
        help="strict: training does not know where unseen classes are (default: %(default)s)",
    )
    begins = parser.add_mutually_exclusive_group()
    begins.add_argument("--clip", metavar="ID|FILE", help="plain CLIP ViT-B/16 to begin with (default: clip-vit-b16)")
    begins.add_argument("--start", type=Path, metavar="FILE", help="transductive: the inductive model to begin with")
    parser.add_argument(
        "--stop-after", type=int, metavar="N", help="end after N of the steps; the same command without it goes on"
    )
    parser.add_argument(
        "--smoke", action="store_true", help="a tiny random CLIP, whatever --clip, a few photos and steps"
    )
    return parser


def _run(arguments: argparse.Namespace, state: PartialState) -> int:
    _check(arguments)
    recipe, unseen = _recipe(arguments), _unseen(arguments)
    check_at_least(1, batch=recipe.batch, stop_after=arguments.stop_after)
    check_at_least(0, workers=arguments.workers)
    share = command.per_process_batch(recipe.batch, state.num_processes)
    plan = UnseenHandling(arguments.setting == "transductive", arguments.protocol == "strict", recipe.terms)
    sets, seen = _sets(arguments, unseen, plan)
    clip, decoder = _model(recipe, arguments.start)
    tower: Any = clip.visual  # a PromptedTower
    clip.to(command.device_of(state))
    config = TagCLIPConfig(
        replace(recipe, clip=describe_file(arguments.start) if arguments.start else _recorded(recipe.clip)),
        arguments.setting,
        arguments.protocol,
        unseen,
        {source.name: len(source.dataset) for source in sets},
    )
    folder = RunFolder(arguments.out, asdict(config))
    if state.is_main_process:
        print(folder.text())
    if command.device_of(state).type == "cuda":
        torch.set_float32_matmul_precision("high")  # TF32, as published
    names = [labelled_batches.training_class_names(source) for source in sets]
    texts = [mean_embeddings(embed_words(clip, words, TEMPLATES[recipe.templates])) for words in names]
    flags = [torch.tensor(is_seen, device=command.device_of(state)) for is_seen in seen]
    trained = fit(
        TagCLIPTraining(tower, decoder, texts, flags, plan),
        labelled_batches.LabelledBatches(sets, recipe.views, share, mixed=False),
        recipe.schedule,
        folder,
        decays=decay_all_but(frozenset()),  # norms and biases decay too, as published
        workers=arguments.workers,
        title="TagCLIP" if arguments.model == "tagclip" else "ZegCLIP",
        stop_after=arguments.stop_after,
    )
    if state.is_main_process:
        seen_names = [
            name for names_of_set, is_seen in zip(names, seen, strict=True) for name in compress(names_of_set, is_seen)
        ]
        info = TrainingInfo(
            tuple(dict.fromkeys(seen_names)), recipe.templates, seen_penalty=arguments.setting == "inductive"
        )
        save_tagclip(folder, clip, trained.decoder, recipe.sizes, info)
        command.print_file_record(folder.path / FILE)
    return 0


def _check(arguments: argparse.Namespace) -> None:
    """Raise TrainingError for options that contradict each other."""
    if (arguments.setting == "transductive") is not (arguments.start is not None):
        raise TrainingError("Transductive training, and no other, goes on from an inductive model: --start FILE.")
    if arguments.setting == "supervised" and (arguments.unseen is not None or arguments.protocol == "strict"):
        raise TrainingError("In supervised training no class is unseen; leave --unseen and --protocol strict out.")
    if arguments.model == "zegclip" and arguments.recipe == "paper":
        raise TrainingError("ZegCLIP's losses are the same in paper and code; leave --recipe paper out.")


def _recipe(arguments: argparse.Namespace) -> TagCLIPRecipe:
    recipe = recipes.published(_benchmark(arguments), arguments.setting, arguments.model)
    recipe = recipes.smoke(recipe) if arguments.smoke else replace(recipe, clip=arguments.clip or recipe.clip)
    schedule = recipe.schedule if arguments.steps is None else recipe.schedule.shortened(arguments.steps)
    schedule = replace(schedule, seed=arguments.seed, precision=arguments.precision)
    terms = replace(
        recipe.terms, form=arguments.recipe or recipe.terms.form, unlabelled=arguments.protocol == "published"
    )
    return replace(
        recipe, schedule=schedule, terms=terms, batch=recipe.batch if arguments.batch is None else arguments.batch
    )


def _benchmark(arguments: argparse.Namespace) -> Benchmark:
    named = bool(arguments.dataset) and all(name.startswith("voc_") for name in arguments.dataset)
    return arguments.like or ("voc" if named else "coco")


def _unseen(arguments: argparse.Namespace) -> tuple[str, ...]:
    if arguments.setting == "supervised":
        return ()
    if arguments.unseen is None:
        return class_splits()[_benchmark(arguments)].unseen
    words = tuple(filter(None, (word.strip() for word in arguments.unseen.split(","))))
    if not words:
        raise TrainingError("--unseen names no word.")
    return words


def _sets(
    arguments: argparse.Namespace, unseen: Sequence[str], plan: UnseenHandling
) -> tuple[list[LabelledSet], list[tuple[bool, ...]]]:
    """The sets to train on, and for each set whether each of its classes is seen."""
    sets = labelled_batches.find_labelled_sets(
        arguments.data, arguments.dataset, SMOKE_PHOTOS if arguments.smoke else None
    )
    seen = seen_classes(sets, unseen, all_there=arguments.unseen is not None)
    if plan.strict:
        sets = [hide_unseen(source, flags, plan.transductive) for source, flags in zip(sets, seen, strict=True)]
    return sets, seen


def _recorded(clip: str) -> str:
    return clip if clip == TINY else describe_weights(clip)


def _model(recipe: TagCLIPRecipe, start: Path | None) -> tuple[open_clip.CLIP, Decoder]:
    """The CLIP and the decoder with initial weights. Raises TrainingError when `start` does not fit the recipe."""
    if start is None:
        seed, prompts = recipe.schedule.seed, recipe.prompts
        clip = (
            initial_model.tiny_clip(prompts, seed)
            if recipe.clip == TINY
            else initial_model.load_initial_clip(recipe.clip, prompts, seed)
        )
        return clip, Decoder(recipe.sizes)
    clip, decoder = initial_model.load_trained(start, recipe.sizes)
    tower: Any = clip.visual
    prompts = tower.prompt_embeddings.shape[1]
    if prompts != recipe.prompts:
        raise TrainingError(f"{start.name} has {prompts} prompts a layer, not {recipe.prompts}; choose another --like.")
    return clip, decoder


if __name__ == "__main__":
    sys.exit(main())
