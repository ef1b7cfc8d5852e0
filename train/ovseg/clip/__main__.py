"""Adapt CLIP to masked regions.

    python -m train.ovseg.clip --pairs runs/pairs --clip clip-vit-b16 --variant both --out runs/clip       one process
    torchrun --nproc_per_node 4 -m train.ovseg.clip --pairs runs/pairs --clip clip-vit-b16 ...             several
    python -m train.ovseg.clip --pairs runs/smoke --out runs/clip-smoke --smoke     a random tiny CLIP, in seconds

PAIRS is what `python -m train.ovseg.pairs` wrote. Variants, as published: "full" trains the image tower and the scale
of the logits, "prompts" only mask prompts in a frozen CLIP, "both" prompts on top of the fully tuned tower. Each
stage ends with OUT/full.safetensors or OUT/prompts.safetensors: OpenAI's names, and visual.mask_embedding if there are
prompts. A few photos of PAIRS are held out; how often a region retrieves its word is printed at the end.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from accelerate import PartialState
from safetensors.torch import save

from eval.markdown import table
from train.common import command
from train.common.loop import fit
from train.common.run_folder import RunFolder, TrainingError
from train.common.schedule import Schedule
from train.common.settings import check_at_least, describe_weights
from train.ovseg.clip import initial_model
from train.ovseg.clip.adaptation import AdaptationTraining, retrieval_accuracy
from train.ovseg.clip.pair_batches import PairBatches
from train.ovseg.pairs import report

VARIANTS = {"full": ("full",), "prompts": ("prompts",), "both": ("full", "prompts")}
RATES = {"full": (5e-6, 0.2), "prompts": (0.05, 0.0)}
"""Highest learning rate and weight decay of each stage."""

WARMUP, EPOCHS, BATCH = 100, 5, 128
HELD_OUT = 0.02
"""Share of the photos whose pairs are held out from training, to measure the retrieval accuracy."""

SMOKE_BATCH, SMOKE_STEPS = 4, 6
SMOKE_RATES = {"full": 1e-3, "prompts": 0.05}


@dataclass(frozen=True)
class AdaptationConfig:
    """Everything that decides the weights.

    Attributes:
        clip: record of the weights that training starts from.
        template: the template of words.
        pairs: the number of pairs.
        pairs_digest: a digest of the pairs.
        held_out: the number of pairs that are held out from training.
        batch: pairs of a process in a step.
        schedules: the schedule of each stage, in order.
    """

    clip: str
    template: str
    pairs: int
    pairs_digest: str
    held_out: int
    batch: int
    schedules: dict[str, Schedule]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return command.run_command(lambda state: _run(parsed, state))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.ovseg.clip", description=str(__doc__).splitlines()[0])
    parser.add_argument("--pairs", type=Path, required=True, metavar="DIR", help="folder of shards")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument(
        "--clip", default="clip-vit-b16", metavar="MODEL", help="catalogue id or file to start from (%(default)s)"
    )
    parser.add_argument("--variant", choices=VARIANTS, default="both", help="default: %(default)s")
    parser.add_argument(
        "--batch", type=int, default=BATCH, metavar="N", help="pairs a process and step (default: %(default)s)"
    )
    parser.add_argument("--epochs", type=int, default=EPOCHS, metavar="N", help="of each stage (default: %(default)s)")
    parser.add_argument("--template", default="{}", help="what is read for a word (default: the word as it is)")
    parser.add_argument("--workers", type=int, default=0, metavar="N", help="processes that read ahead (default: none)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no", help="default: no (float32)")
    parser.add_argument(
        "--smoke",
        action="store_true",
        help=f"a tiny random CLIP, {SMOKE_STEPS} steps of at most {SMOKE_BATCH} pairs, whatever --clip and --epochs",
    )
    return parser


def _run(arguments: argparse.Namespace, state: PartialState) -> int:
    check_at_least(1, batch=arguments.batch, epochs=arguments.epochs)
    check_at_least(0, workers=arguments.workers, seed=arguments.seed)
    if arguments.template.count("{}") != 1:
        raise TrainingError(f"template is '{arguments.template}', but must have one {{}}, where the word goes.")
    shards, digest = report.finished_pairs(arguments.pairs)
    clip = (
        initial_model.tiny_clip(arguments.seed) if arguments.smoke else initial_model.load_initial_clip(arguments.clip)
    )
    tower: Any = clip.visual  # a MaskPromptedTower
    if "full" in VARIANTS[arguments.variant] and tower.mask_embedding is not None:
        raise TrainingError(f"{arguments.clip} has mask prompts already; only --variant prompts goes on from there.")
    tokenizer = open_clip.SimpleTokenizer()
    held_out, trained = _split(shards.photos)
    size = min(arguments.batch, SMOKE_BATCH) if arguments.smoke else arguments.batch
    batches = PairBatches(
        shards,
        trained,
        size,
        tower.image_size[0],
        lambda words: tokenizer([arguments.template.replace("{}", word) for word in words]),
        arguments.seed,
    )
    steps = arguments.epochs * batches.steps(state.num_processes)
    schedules = {stage: _schedule(stage, steps, arguments) for stage in VARIANTS[arguments.variant]}
    name = "tiny" if arguments.smoke else describe_weights(arguments.clip)
    config = AdaptationConfig(name, arguments.template, len(shards), digest, len(held_out), size, schedules)
    folder = RunFolder(arguments.out, asdict(config))
    if state.is_main_process:
        print(folder.text())
    clip.to(command.device_of(state))
    accuracies = [("start", retrieval_accuracy(clip, shards, held_out, batches.tokenize))]
    for stage, schedule in schedules.items():
        _adapt(clip, stage, schedule, batches, folder, arguments.workers)
        accuracies.append((stage, retrieval_accuracy(clip, shards, held_out, batches.tokenize)))
    if state.is_main_process:
        rows = [(name, f"{100 * share:.1f}") for name, share in accuracies]
        print(table(("weights", f"top-1 % of {len(held_out)} held-out pairs"), rows))
    return 0


def _split(photos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Rows of the held-out pairs and rows of the training pairs; all pairs of a photo are in the same part."""
    numbers = np.unique(photos)
    held_out = np.random.default_rng(0).permutation(numbers)[: math.ceil(HELD_OUT * len(numbers))]
    is_held_out = np.isin(photos, held_out)
    return np.flatnonzero(is_held_out), np.flatnonzero(~is_held_out)


def _schedule(stage: str, steps: int, arguments: argparse.Namespace) -> Schedule:
    """The published schedule of a stage, made short for a smoke run."""
    rate, decay = RATES[stage]
    full = Schedule(
        steps=steps,
        learning_rate=rate,
        warmup=min(WARMUP, steps // 10),
        weight_decay=decay,
        betas=(0.9, 0.98),
        epsilon=1e-6,
        clip=None,
        averaging=0,
        precision=arguments.precision,
        seed=arguments.seed,
    )
    if not arguments.smoke:
        return full
    return replace(full, steps=SMOKE_STEPS, learning_rate=SMOKE_RATES[stage], warmup=1, save_every=2, log_every=2)


def _adapt(
    clip: open_clip.CLIP, stage: str, schedule: Schedule, batches: PairBatches, folder: RunFolder, workers: int
) -> None:
    """Train a stage and write its weights."""
    tower: Any = clip.visual
    if stage == "prompts" and tower.mask_embedding is None:
        torch.manual_seed(schedule.seed)  # a resumed run may have drawn other random numbers before
        tower.initialise_prompts()
    stage_folder = RunFolder(folder.path / stage, asdict(schedule))
    fit(AdaptationTraining(clip, stage == "prompts"), batches, schedule, stage_folder, workers=workers, title=stage)
    weights = {name: value.contiguous().cpu() for name, value in clip.state_dict().items()}
    folder.replace(f"{stage}.safetensors", lambda file: file.write(save(weights)))


if __name__ == "__main__":
    sys.exit(main())
