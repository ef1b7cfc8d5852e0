"""The command line: `ovseg-demo segment | methods | checkpoints`, or `python -m ovseg_demo ...` in a clone."""

import argparse
import glob
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from ovseg_demo import image, vocabulary
from ovseg_demo.engine import Engine
from ovseg_demo.errors import ImageError, UserError, exit_status
from ovseg_demo.methods import command_line, registry
from ovseg_demo.render import export
from ovseg_demo.result import Segmentation
from ovseg_demo.weights import catalogue

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: of the command line; None takes the arguments of the process.

    Returns:
        the exit status: 0, or 1 when something failed. Unusable arguments end the process with status 2.
    """
    parsed = _parser().parse_args(arguments)
    return exit_status(lambda: parsed.run(parsed))


def _parser() -> argparse.ArgumentParser:
    program = "ovseg-demo" if Path(sys.argv[0]).stem == "ovseg-demo" else "python -m ovseg_demo"
    parser = argparse.ArgumentParser(prog=program, description="Name every pixel with your own words.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    segment = commands.add_parser("segment", help="segment photos, folders of photos or globs")
    segment.add_argument("photos", nargs="+", metavar="PHOTO")
    segment.add_argument("--vocabulary", required=True, metavar="WORDS", help='for example "cat, sofa|couch"')
    segment.add_argument("--method", default=registry.DEFAULT, choices=list(registry.REGISTRY))
    segment.add_argument("--out", type=Path, default=Path("results"), metavar="DIR", help="default: %(default)s")
    segment.add_argument("--device", help="cpu, cuda, ... (default: the best there is)")
    command_line.add_options(segment)
    segment.set_defaults(run=_segment)

    listing = commands.add_parser("methods", help="list the methods and what they lack")
    listing.set_defaults(run=_methods)

    weights = commands.add_parser("checkpoints", help="list the weight files, verify or download them")
    weights.add_argument("--download", metavar="ID", help="download a weight file; interrupted, it goes on next time")
    weights.add_argument("--from", dest="file", type=Path, metavar="FILE", help="with --download: take this copy")
    weights.add_argument("--verify", action="store_true", help="check the files that are here")
    weights.set_defaults(run=_checkpoints, refuse=weights.error)
    return parser


def _segment(arguments: argparse.Namespace) -> int:
    words = vocabulary.parse(arguments.vocabulary)
    options = registry.read_options(arguments.method, command_line.given_values(arguments))
    registry.available(arguments.method)
    for notice in words.notices:
        print(notice, file=sys.stderr)
    output_folder = arguments.out.resolve()
    photos = [path for path in dict.fromkeys(_expand(arguments.photos)) if output_folder not in path.resolve().parents]
    export.check_writable(arguments.out)
    stems = _distinct_stems(photos)
    engine = Engine(arguments.device)
    failed = 0
    with tqdm(photos, unit="photo", disable=None) as bar:
        for path in bar:
            bar.set_description(path.name)
            try:
                photo = image.load(path)
                result = engine.segment(photo, words, arguments.method, options, lambda p: bar.set_postfix_str(p.stage))
                export.write_files(arguments.out, stems[path], photo, result, words, arguments.method, options)
            except ImageError as error:
                failed += 1
                bar.write(f"{path}: {error}", file=sys.stderr)
                continue
            bar.write(f"{path}: {_findings(result)}")
            for name, choice in result.chosen.items():
                bar.write(f"{name} {choice.reason}", file=sys.stderr)
    print(f"{len(photos) - failed} of {len(photos)} photos written to {arguments.out}", file=sys.stderr)
    return 1 if failed else 0


def _findings(result: Segmentation) -> str:
    """The classes that occur with their shares, and the words that were not found."""
    found = result.summary()
    if not found:
        return "nothing found"
    line = ", ".join(f"{c.name} {c.share:.0%}" for c in found)
    present = {c.name for c in found}
    if absent := [name for name in result.names if name not in present]:
        line += f"; not found: {vocabulary.listed(absent)}"
    return line


def _methods(_: argparse.Namespace) -> int:
    width = max(map(len, registry.REGISTRY))
    for entry in registry.REGISTRY.values():
        print(f"{entry.id:{width}} {'ready' if not entry.missing() else 'needs weights':14} {entry.summary}")
        if entry.missing():
            print(f"{'':{width + 15}} {registry.how_to_get(entry)}")
    return 0


def _checkpoints(arguments: argparse.Namespace) -> int:
    if arguments.download:
        interrupted = "Interrupted." if arguments.file else "Interrupted; the same command goes on from there."
        return exit_status(lambda: _fetch(catalogue.get(arguments.download), arguments.file), interrupted)
    if arguments.file:
        arguments.refuse("--from needs --download ID, which says what the file is")
    failed = 0
    for entry in catalogue.entries().values():
        state = ("bundled" if entry.bundled else "present") if entry.present else "absent"
        if arguments.verify and entry.present:
            try:
                state += f", {_verified(entry)}"
            except UserError as error:
                failed += 1
                state = f"DAMAGED: {error}"
        print(f"{entry.id:25} {state:18} {entry.file:34} {entry.licence}")
        if entry.paper:
            scores = ", ".join(f"{benchmark} {score}" for benchmark, score in entry.paper.items())
            print(f"{'':25} mean IoU in its paper: {scores}")
    return 1 if failed else 0


def _fetch(entry: catalogue.Checkpoint, file: Path | None) -> int:
    """Download one weight file, or take a copy of it from `file`, showing bytes and their rate; print its path."""
    from ovseg_demo.weights import download

    with tqdm(desc=entry.file, unit="B", unit_scale=True, disable=None) as bar:

        def show(done: int, total: int | None) -> None:
            if not bar.n:
                bar.initial = bar.n = done  # bytes of an earlier call say nothing about the rate
            bar.total = total
            bar.update(done - bar.n)

        path = download.import_file(entry, file, show) if file else download.download(entry, show)
    print(path)
    return 0


def _verified(entry: catalogue.Checkpoint) -> str:
    """How far a weight file could be verified. Raises CheckpointError for a damaged file."""
    catalogue.verify(entry)
    if entry.sha256 is None:
        catalogue.check_content(entry.path, entry)
    return "verified" if entry.published else "readable (nothing is published to compare it with)"


def _expand(patterns: Sequence[str]) -> Iterator[Path]:
    """The files that paths, folders and globs stand for. Raises ImageError where one of them stands for no file."""
    for pattern in patterns:
        path = Path(pattern)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        elif path.exists():
            found = [path]
        else:
            found = sorted(p for p in map(Path, glob.glob(pattern, recursive=True)) if p.is_file())
        if not found:
            raise ImageError(f"There is no image at {pattern}.")
        yield from found


def _distinct_stems(photos: Sequence[Path]) -> dict[Path, str]:
    """The output name of each photo: the stem of its file, with a number where an earlier photo has the same stem."""
    taken: set[str] = set()
    stems = {}
    for path in photos:
        stem, number = path.stem, 1
        while stem in taken:
            number += 1
            stem = f"{path.stem}-{number}"
        taken.add(stem)
        stems[path] = stem
    return stems
