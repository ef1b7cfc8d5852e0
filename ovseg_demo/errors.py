"""The errors a person can cause. Each message is one sentence that says what to do."""


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
