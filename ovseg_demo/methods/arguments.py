"""The options of a request as arguments of a command."""

from argparse import ArgumentParser, ArgumentTypeError, Namespace

from ovseg_demo import vocabulary
from ovseg_demo.methods.base import DECODER_STAGES, PROPOSALS, RECIPES, Options


def add(parser: ArgumentParser) -> None:
    """Give a parser the options of methods, all but the ensemble."""
    parser.add_argument(
        "--granularity", type=_granularity, default=Options.granularity, help="0 to 1, or auto (default %(default)s)"
    )
    parser.add_argument("--proposals", default=Options.proposals, choices=PROPOSALS, help="default: %(default)s")
    parser.add_argument(
        "--rejection",
        type=_rejection,
        metavar="K[,K,K]",
        help="SED: before each stage keep only the words that are among the K best somewhere (published: 8)",
    )
    parser.add_argument("--keep-aspect", action="store_true", help="SED: keep the aspect ratio instead of a square")
    parser.add_argument(
        "--seen", metavar="WORDS", help='TagCLIP: words that count as seen, "" for none (default: those it was taught)'
    )
    parser.add_argument("--no-trusty", action="store_true", help="TagCLIP: no weighting by the trusty map")
    parser.add_argument(
        "--recipe",
        choices=RECIPES,
        default=Options.recipe,
        help="TagCLIP: whether 0.1 is taken off seen words, as the published code does (default: %(default)s)",
    )


def options(chosen: Namespace, ensemble: float | None) -> Options:
    """What was chosen. Raises UserError for a value outside its range."""
    return Options(
        granularity=chosen.granularity,
        proposals=chosen.proposals,
        ensemble=ensemble,
        rejection=chosen.rejection,
        keep_aspect=chosen.keep_aspect,
        seen=None if chosen.seen is None else vocabulary.parse_words(chosen.seen),
        trusty=not chosen.no_trusty,
        recipe=chosen.recipe,
    )


def _granularity(text: str) -> float | None:
    """A number, or "auto"."""
    try:
        return None if text == "auto" else float(text)
    except ValueError:
        raise ArgumentTypeError(f"'{text}' is neither a number from 0 to 1 nor auto") from None


def _rejection(text: str) -> tuple[int, ...]:
    """k of every stage, "8", or of each, "8,8,4"."""
    try:
        numbers = tuple(map(int, text.split(",")))
    except ValueError:
        raise ArgumentTypeError(f"'{text}' is neither a whole number nor three, as in 8,8,4") from None
    return numbers * DECODER_STAGES if len(numbers) == 1 else numbers
