"""One person's requests: running, reporting progress, cancelling, remembering what is shown."""

import html
import logging
import queue
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import gradio as gr

from ovseg_demo import image, vocabulary
from ovseg_demo.engine import Engine
from ovseg_demo.errors import UserError
from ovseg_demo.image import Photo
from ovseg_demo.methods.base import Options
from ovseg_demo.result import Segmentation
from ovseg_demo.stages import CancelFlag, Listener, Progress, ignore
from ovseg_demo.vocabulary import Vocabulary

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Request:
    """What a person asked for. Kept for as long as its result is shown, so it holds the photo but not the result."""

    photo: Photo
    vocabulary: Vocabulary
    method: str
    options: Options

    @classmethod
    def read(cls, path: str | None, words: str, method: str, granularity: float) -> "Request":
        """Raises UserError for an absent or unreadable photo, an unusable vocabulary or granularity."""
        if not path:
            raise UserError("Choose a photo first: upload, paste, take one, or pick an example.")
        parsed, options = vocabulary.parse(words), Options(granularity=granularity)
        return cls(image.load(path), parsed, method, options)

    def answer(self, engine: Engine, listener: Listener = ignore) -> "Answer":
        return Answer(self, engine.segment(self.photo, self.vocabulary, self.method, self.options, listener))


@dataclass(frozen=True)
class Answer:
    """A request and its result."""

    request: Request
    result: Segmentation


class Running:
    """The running request of each browser session, so that it can be cancelled."""

    def __init__(self) -> None:
        self._flags: dict[str, CancelFlag] = {}
        self._lock = threading.Lock()

    def start(self, session: str, listener: Listener) -> CancelFlag:
        """Register a request; an older one of the same session is cancelled."""
        flag = CancelFlag(listener)
        with self._lock:
            older, self._flags[session] = self._flags.get(session), flag
        if older:
            older.cancel()
        return flag

    def finish(self, session: str, flag: CancelFlag) -> None:
        with self._lock:
            if self._flags.get(session) is flag:
                del self._flags[session]

    def cancel(self, session: str) -> None:
        with self._lock:
            flag = self._flags.get(session)
        if flag:
            flag.cancel()


def follow(running: Running, session: str, work: Callable[[Listener], Answer]) -> Iterator[Progress | Answer]:
    """Do the work in a thread of its own, yielding its progress as it comes and its result last.

    Closing the iterator cancels the work. Raises what the work raises.
    """
    news: queue.Queue[Progress | Answer | BaseException] = queue.Queue()
    flag = running.start(session, news.put)

    def labour() -> None:
        try:
            news.put(work(flag))
        except BaseException as error:  # carried to the caller's thread, which raises it
            news.put(error)

    threading.Thread(target=labour, daemon=True).start()
    try:
        while True:
            item = news.get()
            if isinstance(item, BaseException):
                raise item
            yield item
            if isinstance(item, Answer):
                return
    finally:
        flag.cancel()
        running.finish(session, flag)


def tell(error: Exception) -> gr.Error:
    """The toast for an error: one sentence, never markup, never a traceback.

    gradio renders messages as HTML, and ours can quote what a person typed.
    """
    if isinstance(error, UserError):
        return gr.Error(html.escape(str(error)), title="Please note", duration=12, print_exception=False)
    _log.exception("unexpected failure", exc_info=error)
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return gr.Error("The server ran out of memory; try fewer words or a smaller photo.", print_exception=False)
    return gr.Error("Something failed on the server; its log says what. Your photo and words are kept.")
