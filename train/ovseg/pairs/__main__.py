"""Collect mask-word pairs.

    python -m train.ovseg.pairs --data DIR --out runs/pairs                     one caption a photo
    python -m train.ovseg.pairs --data DIR --out runs/pairs5 --captions five    all its captions
    python -m train.ovseg.pairs --data DIR --out runs/named --source masks      masks and class names from annotators
    torchrun --nproc_per_node 2 -m train.ovseg.pairs --data DIR ...             several processes, a shard at a time
    python -m train.ovseg.pairs --data DIR --out runs/smoke --smoke             a few photos, in seconds

DIR holds folders NAME_train as `train.common.image_sets` describes. A shard has the pairs of a fixed range of photos
and is written in one go: the same command goes on with the shards that are missing, with any number of processes. At
the end OUT has pairs-NUMBER.tar, report.json, report.md and samples.html.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from accelerate import PartialState
from tqdm import tqdm

from eval.datasets.base import DatasetError
from ovseg_demo.models import factory
from train.common import command
from train.common.image_sets import described_sets, labelled_sets, open_photo
from train.common.run_folder import RunFolder
from train.common.settings import check_at_least, describe_weights
from train.ovseg.pairs import proposals, report, shards
from train.ovseg.pairs.mining import CaptionPairs, LabelPairs, PairSource, WordMatcher
from train.ovseg.pairs.nouns import NounParser
from train.ovseg.pairs.optional_libraries import import_optional

PHOTOS = 100
"""Photos of a shard: what is lost when a run is killed, a few minutes on two CPU cores."""

SAMPLES = 40
SMOKE_PHOTOS, SMOKE_SHARD = 4, 2
CAPTION_COUNTS = {"one": 1, "five": 5}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return command.run_command(lambda state: _run(parsed, state), "shard")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.ovseg.pairs", description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds the sets, folders NAME_train")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--source", choices=("captions", "masks"), default="captions", help="default: %(default)s")
    parser.add_argument(
        "--captions", choices=CAPTION_COUNTS, default="one", help="of each photo (default: %(default)s)"
    )
    parser.add_argument("--proposals", default="balanced", metavar="MAKER", help=f"{proposals.HELP} (%(default)s)")
    parser.add_argument(
        "--clip", default="mini", metavar="MODEL", help=f"matches words with masks: {factory.MODEL_HELP} (%(default)s)"
    )
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N photos of each set")
    parser.add_argument(
        "--smoke", action="store_true", help=f"the first {SMOKE_PHOTOS} photos of each set, whatever --limit"
    )
    return parser


def _run(arguments: argparse.Namespace, state: PartialState) -> int:
    check_at_least(1, limit=arguments.limit)
    import_optional(shards.WRITER)  # fails now rather than after a hundred photos
    limit, size = (SMOKE_PHOTOS, SMOKE_SHARD) if arguments.smoke else (arguments.limit, PHOTOS)
    source, config = (
        _caption_source(arguments, limit, state) if arguments.source == "captions" else _label_source(arguments, limit)
    )
    folder = RunFolder(arguments.out, config | {"photos_a_shard": size})
    state.wait_for_everyone()  # until the main process has checked that the folder is this run's
    _mine(source, folder, size, state)
    state.wait_for_everyone()
    if state.is_main_process:
        _report(source, folder)
    return 0


def _caption_source(arguments: argparse.Namespace, limit: int | None, state: PartialState) -> tuple[PairSource, dict]:
    sets = described_sets(arguments.data, limit, ("captions",))
    if not sets:
        raise DatasetError(f"{arguments.data} holds no folder NAME_train with images/ and captions.json.")
    parser = NounParser()
    generator = proposals.create_proposal_generator(arguments.proposals, command.device_of(state))
    matcher = WordMatcher(generator, factory.create_model(arguments.clip, str(command.device_of(state))))
    config = {"source": "captions", "captions": arguments.captions, "proposals": generator.name}
    config |= {
        "clip": describe_weights(arguments.clip),
        "photos": {described.name: len(described.photos) for described in sets},
    }
    return CaptionPairs(sets, CAPTION_COUNTS[arguments.captions], parser, matcher), config


def _label_source(arguments: argparse.Namespace, limit: int | None) -> tuple[PairSource, dict]:
    sets = labelled_sets(arguments.data, limit)
    if not sets:
        raise DatasetError(f"{arguments.data} holds no folder NAME_train with images/, masks/ and classes.json.")
    return LabelPairs(sets), {"source": "masks", "photos": {labelled.name: len(labelled.dataset) for labelled in sets}}


def _mine(source: PairSource, folder: RunFolder, size: int, state: PartialState) -> None:
    """Write the shards of this process that are missing."""
    own_shards = range(state.process_index, -(-len(source) // size), state.num_processes)
    missing = [number for number in own_shards if not shards.shard_path(folder, number).exists()]
    done = size * (len(own_shards) - len(missing))
    with tqdm(
        total=size * len(own_shards), initial=done, desc="pairs", unit="photo", disable=not state.is_main_process
    ) as bar:
        for number in missing:
            pairs = {}
            for photo in range(number * size, min((number + 1) * size, len(source))):
                pairs[photo] = source.pairs(photo)
                bar.update()
            shards.write_shards(folder, number, pairs)


def _report(source: PairSource, folder: RunFolder) -> None:
    pair_shards = shards.PairShards(folder.path)
    counts = folder.config | report.summary(pair_shards, len(source))
    samples = report.sample_photos(pair_shards, SAMPLES, lambda photo: open_photo(source.photo(photo)).pixels)
    report.write_report(folder, counts, report.html(counts, samples))
    print(report.markdown(counts))


if __name__ == "__main__":
    sys.exit(main())
