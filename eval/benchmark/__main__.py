"""Speed and memory, printed as Markdown tables.

    python -m eval.benchmark dense         dense CLIP with and without PAMR, compared with NACLIP's release
    python -m eval.benchmark interactive   first result, slider and new words, compared with segment-anything
    python -m eval.benchmark memory        the serving process after many large photos
    python -m eval.benchmark methods       every method against the number of classes, with a plot
    python -m eval.benchmark mrovseg       MROVSeg, compared with a plain implementation of the same design
    python -m eval.benchmark regions       embedding of regions by CLIP, compared with OVSeg's release
    python -m eval.benchmark sed           SED against the number of classes, compared with its release
    python -m eval.benchmark segclip       SegCLIP, from pixels to labels, compared with its release
    python -m eval.benchmark tagclip       TagCLIP and ZegCLIP, likewise

The figures depend on the machine that the benchmark runs on; no test asserts a time. Needs Linux.
"""

import argparse
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from eval.benchmark import dense, interactive, memory, mrovseg, regions, sed, segclip, tagclip
from eval.benchmark import methods as methods_benchmark
from ovseg_demo.errors import exit_status
from ovseg_demo.methods import command_line, registry
from ovseg_demo.methods.mrovseg.settings import SETTINGS
from ovseg_demo.ui import gallery


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; the exit status is 0, 1 when it failed, or 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return exit_status(lambda: _run(parsed))


def _run(arguments: argparse.Namespace) -> int:
    with _tidy_when_terminated():
        print(arguments.run(arguments))
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m eval.benchmark", description=str(__doc__).splitlines()[0])
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    photo_count = _between(1, len(gallery.examples()))

    live = commands.add_parser("interactive", help="first result, slider and new words")
    live.add_argument("--photos", type=photo_count, default=3, help="how many gallery photos (default %(default)s)")
    many = _between(1, 10_000)
    live.add_argument("--moves", type=many, default=30, help="slider moves a photo (default %(default)s)")
    live.add_argument(
        "--skip", nargs="*", default=[], choices=interactive.IMPLEMENTATIONS, help="implementations to leave out"
    )
    live.set_defaults(
        run=lambda arguments: interactive.report(_photos(arguments.photos), arguments.moves, arguments.skip)
    )

    large = commands.add_parser("memory", help="the serving process after many large photos")
    large.add_argument("--photos", type=many, default=50, help="default %(default)s")
    large.set_defaults(run=lambda arguments: memory.report(arguments.photos))

    every = commands.add_parser("methods", help="every method against the number of classes")
    every.add_argument("--methods", nargs="+", default=list(registry.REGISTRY), choices=list(registry.REGISTRY))
    every.add_argument(
        "--classes",
        nargs="+",
        type=_between(1, len(methods_benchmark.NAMES)),
        default=methods_benchmark.CLASSES,
        metavar="N",
        help=f"of ADE20K-847 (default {' '.join(map(str, methods_benchmark.CLASSES))})",
    )
    every.add_argument("--photos", type=photo_count, default=2, help="how many gallery photos (default %(default)s)")
    command_line.add_options(every)
    every.add_argument("--out", type=Path, default=Path("runs/benchmark"), metavar="DIR", help="default: %(default)s")
    every.set_defaults(run=_methods)

    clip = commands.add_parser("regions", help="reading regions by CLIP, beside the way of OVSeg's release")
    clip.add_argument(
        "--clip", default=regions.ARCHITECTURES[-1], choices=regions.ARCHITECTURES, help="default: %(default)s"
    )
    clip.add_argument("--regions", type=_between(2, regions.MOST), default=60, metavar="N", help="default %(default)s")
    clip.add_argument("--repeats", type=many, default=3, metavar="N", help="default %(default)s")
    clip.add_argument("--prompts", action="store_true", help="with mask prompts")
    clip.set_defaults(run=_regions)

    patches = commands.add_parser("dense", help="dense CLIP with and without PAMR, compared with NACLIP's release")
    patches.add_argument("--model", default=next(iter(dense.MODELS)), choices=dense.MODELS, help="default: %(default)s")
    patches.add_argument("--classes", type=_between(2, 1_000), default=20, metavar="N", help="default %(default)s")
    patches.add_argument("--repeats", type=many, default=3, metavar="N", help="default %(default)s")
    patches.set_defaults(run=_dense)

    costs = commands.add_parser("sed", help="SED against the number of classes, beside the way of its release")
    costs.add_argument("--model", default=next(iter(sed.MODELS)), choices=sed.MODELS, help="default: %(default)s")
    costs.add_argument(
        "--classes",
        nargs="+",
        type=_between(2, 10_000),
        default=sed.COUNTS,
        metavar="N",
        help=f"the way of the release needs 20 MB for each (default {' '.join(map(str, sed.COUNTS))})",
    )
    costs.add_argument("--repeats", type=many, default=3, metavar="N", help="default %(default)s")
    costs.add_argument("--out", type=Path, default=Path("runs/benchmark"), metavar="DIR", help="default: %(default)s")
    costs.set_defaults(run=_sed)

    groups = commands.add_parser("segclip", help="SegCLIP from pixels to labels, beside the way of its release")
    groups.add_argument(
        "--model", default=next(iter(segclip.MODELS)), choices=segclip.MODELS, help="default: %(default)s"
    )
    groups.add_argument("--classes", type=_between(2, 1_000), default=21, metavar="N", help="default %(default)s")
    groups.add_argument("--repeats", type=many, default=3, metavar="N", help="default %(default)s")
    groups.set_defaults(run=_segclip)

    slices = commands.add_parser("mrovseg", help="MROVSeg from pixels to labels, beside a plain implementation")
    slices.add_argument("--model", default=next(iter(SETTINGS)), choices=SETTINGS, help="default: %(default)s")
    slices.add_argument("--classes", type=_between(2, 1_000), default=150, metavar="N", help="default %(default)s")
    slices.add_argument("--repeats", type=many, default=3, metavar="N", help="default %(default)s")
    slices.set_defaults(run=_mrovseg)

    queries = commands.add_parser(
        "tagclip", help="TagCLIP against the number of classes, beside the way of its release"
    )
    queries.add_argument("--model", default=tagclip.MODELS[0], choices=tagclip.MODELS, help="default: %(default)s")
    queries.add_argument(
        "--classes",
        nargs="+",
        type=_between(2, 1_000),
        default=tagclip.COUNTS,
        metavar="N",
        help=f"default {' '.join(map(str, tagclip.COUNTS))}",
    )
    queries.add_argument("--repeats", type=many, default=3, metavar="N", help="default %(default)s")
    queries.set_defaults(run=_tagclip)
    return parser


def _methods(arguments: argparse.Namespace) -> str:
    entries = [registry.get(name) for name in dict.fromkeys(arguments.methods)]
    options = command_line.options_by_method([spec.id for spec in entries], command_line.given_values(arguments))
    counts = sorted(set(arguments.classes))
    return methods_benchmark.report(entries, counts, _photos(arguments.photos), options, arguments.out)


def _regions(arguments: argparse.Namespace) -> str:
    (photo,) = _photos(1)
    return regions.report(arguments.clip, arguments.regions, arguments.repeats, arguments.prompts, photo)


def _dense(arguments: argparse.Namespace) -> str:
    (photo,) = _photos(1)
    return dense.report(arguments.model, arguments.classes, arguments.repeats, photo)


def _sed(arguments: argparse.Namespace) -> str:
    (photo,) = _photos(1)
    return sed.report(arguments.model, sorted(set(arguments.classes)), arguments.repeats, photo, arguments.out)


def _segclip(arguments: argparse.Namespace) -> str:
    (photo,) = _photos(1)
    return segclip.report(arguments.model, arguments.classes, arguments.repeats, photo)


def _mrovseg(arguments: argparse.Namespace) -> str:
    (photo,) = _photos(1)
    return mrovseg.report(arguments.model, arguments.classes, arguments.repeats, photo)


def _tagclip(arguments: argparse.Namespace) -> str:
    (photo,) = _photos(1)
    return tagclip.report(arguments.model, sorted(set(arguments.classes)), arguments.repeats, photo)


def _photos(count: int) -> list[Path]:
    return [example.path for example in gallery.examples()[:count]]


def _between(least: int, most: int) -> Callable[[str], int]:
    """An argparse type: a whole number from `least` to `most`, both included."""

    def number(text: str) -> int:
        if not least <= (value := int(text)) <= most:
            raise argparse.ArgumentTypeError(f"{value} does not lie between {least} and {most}")
        return value

    return number


@contextmanager
def _tidy_when_terminated() -> Iterator[None]:
    """Let SIGTERM end the program as an exception does, so that temporary files and processes go with it."""
    before = signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


if __name__ == "__main__":
    sys.exit(main())
