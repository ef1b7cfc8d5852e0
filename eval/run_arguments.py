"""The arguments that commands share which run methods over a benchmark."""

import argparse
from dataclasses import replace
from pathlib import Path

from eval import datasets
from eval.datasets.base import Dataset, DatasetError
from eval.datasets.split import PARTS, held_out
from ovseg_demo.methods import command_line, registry


def add_arguments(parser: argparse.ArgumentParser, out: str | None, dataset: str | None = None) -> None:
    """Give a parser the arguments that say which methods run on what, and how.

    Args:
        parser: of the command.
        out: default of the folder that the command writes into; None for a command that writes none.
        dataset: name of the default benchmark; None makes the argument required.
    """
    parser.add_argument("--method", nargs="+", default=[registry.DEFAULT], choices=list(registry.REGISTRY))
    parser.add_argument("--dataset", required=dataset is None, default=dataset, choices=list(datasets.DATASETS))
    parser.add_argument("--root", required=True, type=Path, metavar="DIR", help="where the benchmark lies")
    parser.add_argument("--vocabulary", metavar="VARIANT", help="a published wording of the class names")
    parser.add_argument("--part", choices=PARTS, help="the images that training leaves out, or the others")
    parser.add_argument("--limit", type=count, metavar="N", help="only the first N images, by name")
    command_line.add_options(parser)
    if out is not None:
        parser.add_argument("--out", type=Path, default=Path(out), metavar="DIR", help="default: %(default)s")
    parser.add_argument("--device", help="cpu, cuda, ... (default: the best there is)")
    parser.add_argument(
        "--threads",
        type=count,
        default=1,
        metavar="N",
        help="CPU threads a process (default %(default)s); results are the same to the bit for equal N only, so use "
        "more processes first",
    )


def count(text: str) -> int:
    """A whole number of at least 1. Raises what argparse reports for anything else."""
    if (number := int(text)) < 1:
        raise argparse.ArgumentTypeError(f"{number} is not a number of at least 1")
    return number


def open_part(arguments: argparse.Namespace) -> Dataset:
    """The benchmark that parsed arguments name, or one part of its fixed split; not cut by `--limit`.

    Raises:
        DatasetError: when the files are not there, or the part has no image.
        VocabularyError: for a wording that the benchmark does not have.
    """
    dataset = datasets.open_dataset(arguments.dataset, arguments.root, arguments.vocabulary)
    if arguments.part is None:
        return dataset
    samples = tuple(sample for sample in dataset if held_out(sample.key) is PARTS[arguments.part])
    if not samples:
        raise DatasetError(f"The part '{arguments.part}' of {dataset.name} has no image; it has {len(dataset)} in all.")
    return replace(dataset, samples=samples)
