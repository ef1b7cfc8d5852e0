"""One person's requests: running, reporting progress, cancelling, remembering which result is shown."""

import html
import logging
import queue
import threading
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import gradio as gr

from ovseg_demo import image, vocabulary
from ovseg_demo.engine import Engine
from ovseg_demo.errors import Cancelled, UserError
from ovseg_demo.image import Photo
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.result import Segmentation
from ovseg_demo.runtime.memory import trim_allocator
from ovseg_demo.runtime.stages import CancelFlag, Listener, Progress, ignore_progress
from ovseg_demo.vocabulary import Vocabulary

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a person asked for.

    It is kept for as long as its result is shown, so it holds the photo but not the result.

    Attributes:
        photo: what is segmented.
        vocabulary: the classes.
        method: the id of the method.
        options: of the method.
    """

    photo: Photo
    vocabulary: Vocabulary
    method: str
    options: MethodOptions

    @classmethod
    def read(
        cls,
        path: str | None,
        words: str,
        method: str,
        options: MethodOptions,
        check: Callable[[], object] = lambda: None,
    ) -> "Request":
        """The request of what a person entered.

        Args:
            path: of the photo's file; None where there is none.
            words: the text of the vocabulary box.
            method: the id of a method.
            options: of the method.
            check: called while the photo is read, see `image.load`.

        Raises UserError for an absent or unreadable photo and for an unusable vocabulary.
        """
        if not path:
            raise UserError("Choose a photo first: upload, paste, take one, or pick an example.")
        parsed = vocabulary.parse(words or "")
        try:
            photo = image.load(path, check=check)
        finally:
            trim_allocator()  # a large photo was decoded in blocks that the allocator would keep
        return cls(photo, parsed, method, options)

    def answer(self, engine: Engine, listener: Listener = ignore_progress) -> "Answer":
        """The request with its result; raises whatever `Engine.segment` raises.

        Args:
            engine: segments the photo.
            listener: is told of the progress.
        """
        return Answer(self, engine.segment(self.photo, self.vocabulary, self.method, self.options, listener))


@dataclass(frozen=True)
class Answer:
    """A request and its result."""

    request: Request
    result: Segmentation


class Superseded(Cancelled):
    """A newer request of the same session has taken over; the page shows that one.

    Attributes:
        task: of the newer request.
    """

    def __init__(self, task: str) -> None:
        super().__init__()
        self.task = task


CANCELLING = Progress("Cancelling", 0)
"""Says that the person has cancelled the request and the work has not stopped yet."""


class RequestFlag(CancelFlag):
    """Says also why a request was cancelled, and passes on messages of any type.

    Attributes:
        successor: the task of the person's next request where that request cancelled this one; None where the person
            did.
    """

    successor: str | None = None

    def __call__(self, message: Any) -> None:
        super().__call__(message)

    def cancel_for_person(self) -> None:
        """Cancel, and say so among the request's own messages, so that it cannot arrive after the request's end."""
        self._listener(CANCELLING)
        self.cancel()


class RunningRequests:
    """The running request of each browser session, so that it can be cancelled."""

    def __init__(self) -> None:
        self._flags: dict[str, RequestFlag] = {}
        self._lock = threading.Lock()

    def start(self, session: str, listener: Callable[[Any], None], task: str) -> RequestFlag:
        """Register a request; an older request of the same session, of either task, is cancelled.

        Args:
            session: of the browser's tab.
            listener: receives the messages of the request.
            task: "segment" or "compare".
        """
        flag = RequestFlag(listener)
        with self._lock:
            older, self._flags[session] = self._flags.get(session), flag
        if older:
            older.successor = task
            older.cancel()
        return flag

    def busy(self, session: str) -> bool:
        """Whether a request of a session is running."""
        with self._lock:
            return session in self._flags

    def finish(self, session: str, flag: RequestFlag) -> None:
        """Forget a request, given by the flag that `start` returned, unless a newer one has taken its place."""
        with self._lock:
            if self._flags.get(session) is flag:
                del self._flags[session]

    def cancel(self, session: str) -> None:
        """Cancel the running request of a session, if there is one, because the person wants so."""
        with self._lock:
            flag = self._flags.get(session)
        if flag:
            flag.cancel_for_person()


@dataclass(frozen=True)
class _Finished:
    """What the work returned."""

    result: Any


def follow(
    running: RunningRequests, session: str, work: Callable[[Callable[[Any], None]], Any], task: str = "segment"
) -> Generator[Any, None, None]:
    """Do the work in a thread of its own, and yield its messages as they come and its result last.

    Closing the generator cancels the work.

    Args:
        running: where the request is registered.
        session: of the browser's tab.
        work: does the work; it passes its messages, progress or anything else, to its argument.
        task: "segment" or "compare".

    Yields the messages, with CANCELLING among them once the person has cancelled, and then what `work` returns.

    Raises what the work raises; Superseded instead of Cancelled, or of a result, where a newer request has taken over.
    """
    messages: queue.Queue[Any] = queue.Queue()
    flag = running.start(session, messages.put, task)

    def run() -> None:
        try:
            messages.put(_Finished(work(flag)))
        except BaseException as error:  # carried to the caller's thread, which raises it
            messages.put(error)

    threading.Thread(target=run, daemon=True).start()
    try:
        while True:
            message = messages.get()
            if isinstance(message, _Finished | BaseException) and flag.successor is not None:
                raise Superseded(flag.successor)
            if isinstance(message, BaseException):
                raise message
            if isinstance(message, _Finished):
                yield message.result
                return
            yield message
    finally:
        flag.cancel()
        running.finish(session, flag)


def error_sentence(error: Exception) -> str:
    """One sentence on a failure, for a person; the details of an unexpected failure go to the log."""
    if isinstance(error, UserError):
        return str(error)
    _log.error("unexpected failure", exc_info=error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "The server ran out of memory; try fewer words or a smaller photo."
    return "Something failed on the server; its log says what. Your photo and words are kept."


def error_toast(error: Exception) -> gr.Error:
    """The error as the page shows it: never markup, although gradio renders messages as HTML and ours quote people."""
    return gr.Error(html.escape(error_sentence(error)), duration=12, print_exception=False)
