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
from ovseg_demo.weights import catalogue

IMAGE_SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 when something failed, or 2 for unusable arguments."""
    chosen = _parser().parse_args(arguments)
    return exit_status(lambda: chosen.run(chosen))


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


def _segment(chosen: argparse.Namespace) -> int:
    words = vocabulary.parse(chosen.vocabulary)
    options = registry.read_options(chosen.method, command_line.typed_values(chosen))
    registry.available(chosen.method)
    for notice in words.notices:
        print(notice, file=sys.stderr)
    own = chosen.out.resolve()
    photos = [p for p in dict.fromkeys(_expand(chosen.photos)) if own not in p.resolve().parents]
    export.check_writable(chosen.out)
    stems = _distinct_stems(photos)
    engine = Engine(chosen.device)
    failed = 0
    with tqdm(photos, unit="photo", disable=None) as bar:
        for path in bar:
            bar.set_description(path.name)
            try:
                photo = image.load(path)
                result = engine.segment(photo, words, chosen.method, options, lambda p: bar.set_postfix_str(p.stage))
                export.write_files(chosen.out, stems[path], photo, result, words, chosen.method, options)
            except ImageError as error:
                failed += 1
                bar.write(f"{path}: {error}", file=sys.stderr)
                continue
            found = ", ".join(f"{c.name} {c.share:.0%}" for c in result.summary()) or "nothing found"
            bar.write(f"{path}: {found}")
            for name, choice in result.chosen.items():
                bar.write(f"{name} {choice.reason}", file=sys.stderr)
    print(f"{len(photos) - failed} of {len(photos)} photos written to {chosen.out}", file=sys.stderr)
    return 1 if failed else 0


def _methods(_: argparse.Namespace) -> int:
    width = max(map(len, registry.REGISTRY))
    for entry in registry.REGISTRY.values():
        print(f"{entry.id:{width}} {'ready' if not entry.missing() else 'needs weights':14} {entry.summary}")
        if entry.missing():
            print(f"{'':{width + 15}} {registry.how_to_get(entry)}")
    return 0


def _checkpoints(chosen: argparse.Namespace) -> int:
    if chosen.download:
        interrupted = "Interrupted." if chosen.file else "Interrupted; the same command goes on from there."
        return exit_status(lambda: _fetch(catalogue.get(chosen.download), chosen.file), interrupted)
    if chosen.file:
        chosen.refuse("--from needs --download ID, which says what the file is")
    failed = 0
    for entry in catalogue.entries().values():
        state = ("bundled" if entry.bundled else "present") if entry.present else "absent"
        if chosen.verify and entry.present:
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
    """Bring one weight file here, showing bytes and their rate, and print its path."""
    from ovseg_demo.weights import download

    with tqdm(desc=entry.file, unit="B", unit_scale=True, disable=None) as bar:

        def show(done: int, total: int | None) -> None:
            if not bar.n:
                bar.initial = bar.n = done  # what an earlier call brought says nothing about the rate
            bar.total = total
            bar.update(done - bar.n)

        path = download.import_file(entry, file, show) if file else download.download(entry, show)
    print(path)
    return 0


def _verified(entry: catalogue.Checkpoint) -> str:
    catalogue.verify(entry)
    if entry.sha256 is None:
        catalogue.check_content(entry.path, entry)
    return "verified" if entry.published else "readable (nothing is published to compare it with)"


def _expand(arguments: Sequence[str]) -> Iterator[Path]:
    """Files, the images inside folders, and the matches of globs. Raises ImageError when one yields nothing."""
    for argument in arguments:
        path = Path(argument)
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
        elif path.exists():
            found = [path]
        else:
            found = sorted(p for p in map(Path, glob.glob(argument, recursive=True)) if p.is_file())
        if not found:
            raise ImageError(f"There is no image at {argument}.")
        yield from found


def _distinct_stems(photos: Sequence[Path]) -> dict[Path, str]:
    """Output names: the file's stem; where photos share one, the later get a number, so that none is overwritten."""
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
