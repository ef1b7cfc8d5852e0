"""The errors a person can cause. Each message is one sentence that says what to do."""

import sys
from collections.abc import Callable


class UserError(Exception):
    """Base of every error that the page, the command line and the API show as one line."""


class ImageError(UserError):
    """The image cannot be used: unreadable, empty, too small or too large."""


class VocabularyError(UserError):
    """The vocabulary cannot be used: empty, too many classes, too long."""


class CheckpointError(UserError):
    """A weight file is missing, corrupt, or does not fit the model."""


class MethodError(UserError):
    """The method is unknown, unavailable, or was given an option outside its range."""


class Cancelled(UserError):
    """The person asked to stop."""

    def __init__(self) -> None:
        super().__init__("Cancelled.")


def exit_status(run: Callable[[], int], interrupted: str = "Cancelled.") -> int:
    """The exit status of a command.

    Args:
        run: the command; returns its exit status.
        interrupted: printed after Ctrl-C.

    Returns:
        The status that `run` returns; 1 after a UserError, whose message is printed; 130 after Ctrl-C.
    """
    try:
        return run()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(interrupted, file=sys.stderr)
        return 130
