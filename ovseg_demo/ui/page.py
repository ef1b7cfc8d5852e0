"""Layout of the page and the wiring of its events."""

import atexit
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from ovseg_demo import export, gallery, methods
from ovseg_demo.engine import Engine
from ovseg_demo.errors import Cancelled, UserError
from ovseg_demo.methods.base import PROPOSALS, Options
from ovseg_demo.stages import Listener, Progress
from ovseg_demo.ui import fragments
from ovseg_demo.ui.payload import payload
from ovseg_demo.ui.session import CANCELLING, Answer, Request, Running, Superseded, follow, toast, told

_ASSETS = Path(__file__).parent / "assets"
_EXPORTS = Path(tempfile.mkdtemp(prefix="ovseg-demo-"))
atexit.register(shutil.rmtree, _EXPORTS, ignore_errors=True)
_MAX_UPLOAD = "64mb"
"""A 100-megapixel JPEG or a 16-bit PNG of a full-frame camera; more only fills the disk of a small host."""

_FILE_AGE_SECONDS = 3600
_SESSION_SECONDS = 3600
_SESSIONS = 500
"""Visits remembered at once; each keeps one photo of at most 3 MB."""

_CONCURRENT_REQUESTS = 16
"""Requests accepted at once. Heavy stages still run one by one; the rest wait visibly and can be cancelled."""

_GRANULARITY_HELP = "At 1 each class keeps its best mask only; lower keeps more masks."
_SWITCH_THEME = "element.querySelector('.theme').onclick = () => document.body.classList.toggle('dark')"
_PICK_EXAMPLE = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-example]');
  if (button) trigger('click', { example: Number(button.dataset.example) });
});
"""


def launch_settings() -> dict[str, Any]:
    """Keyword arguments for `Blocks.launch` that the page needs."""
    system = ("ui-sans-serif", "system-ui", "sans-serif")
    theme = gr.themes.Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        spacing_size="sm",
        text_size="sm",
        font=system,
        font_mono=("ui-monospace", "monospace"),
    )
    return {
        "theme": theme,
        "css_paths": [_ASSETS / "style.css"],
        "allowed_paths": [str(gallery.FOLDER)],
        "max_file_size": _MAX_UPLOAD,
        "state_session_capacity": _SESSIONS,
        "footer_links": ["api", "settings"],
    }


def build(engine: Engine) -> gr.Blocks:
    """The page on top of an engine."""
    handlers = _Handlers(engine)
    first = gallery.examples()[0]
    with gr.Blocks(
        title="ovseg-demo",
        fill_width=True,
        analytics_enabled=False,
        delete_cache=(_FILE_AGE_SECONDS, _FILE_AGE_SECONDS),
    ) as page:
        shown = gr.State(None, time_to_live=_SESSION_SECONDS)
        gr.HTML(
            html_template=_asset("header.html"), js_on_load=_SWITCH_THEME, elem_id="header", apply_default_css=False
        )
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="controls", scale=0, min_width=360):
                photo = gr.Image(
                    str(first.path),
                    type="filepath",
                    label="Photo",
                    sources=["upload", "webcam", "clipboard"],
                    height=156,
                    elem_id="photo",
                    buttons=[],
                )
                # gradio would decode the file itself, and fail with a traceback on what is not an image.
                photo.preprocess = lambda uploaded: uploaded and uploaded.path
                strip = gr.HTML(fragments.strip(), js_on_load=_PICK_EXAMPLE, elem_id="strip", apply_default_css=False)
                words = gr.Textbox(
                    first.words,
                    label="Words to find",
                    placeholder="cat, sofa|couch, window",
                    lines=1,
                    max_lines=3,
                    elem_id="words",
                )
                chips = gr.HTML(fragments.chips(first.words), elem_id="chips", apply_default_css=False)
                method = gr.Radio(
                    _available(),
                    value=methods.DEFAULT,
                    label="Method",
                    info=methods.get(methods.DEFAULT).summary,
                    elem_id="method",
                )
                absent = gr.HTML(fragments.unavailable(), elem_id="absent", apply_default_css=False)
                granularity = gr.Slider(
                    0,
                    1,
                    Options.granularity,
                    step=0.01,
                    label="Granularity",
                    info=_GRANULARITY_HELP,
                    elem_id="granularity",
                )
                proposals = gr.Radio(
                    list(PROPOSALS), value=Options.proposals, label="Mask search", elem_id="proposals", container=False
                )
                # The number box takes anything; gradio would answer what is outside the range with a traceback.
                granularity.preprocess = lambda value: (
                    min(max(value, 0), 1) if value is not None else Options.granularity
                )
                with gr.Row(elem_id="actions"):
                    start = gr.Button("Segment", variant="primary", elem_id="segment", scale=3)
                    stop = gr.Button("Cancel", elem_id="cancel", interactive=False, scale=1, min_width=80)
                status = gr.HTML("", elem_id="status", apply_default_css=False)
            with gr.Column(elem_id="results", scale=1):
                viewer = gr.HTML(
                    value=None,
                    html_template=_asset("viewer.html"),
                    js_on_load=_asset("viewer.js"),
                    elem_id="viewer",
                    apply_default_css=False,
                )
                with gr.Row(elem_id="downloads"):
                    for kind, title in (
                        ("labels", "Label PNG"),
                        ("overlay", "Overlay PNG"),
                        ("json", "JSON (COCO RLE)"),
                    ):
                        _download(handlers, kind, title, shown)
        _api(handlers)

        request = [photo, words, method, granularity, proposals]
        outputs = [status, viewer, shown, stop]
        quiet = {"api_visibility": "private", "show_progress": "hidden"}
        live = quiet | {"queue": False}
        run = quiet | {"fn": handlers.segment, "inputs": request, "outputs": outputs, "trigger_mode": "multiple"}
        settle = live | {"fn": handlers.change_granularity, "inputs": [granularity, shown], "outputs": [viewer, shown]}
        for ask in (start.click, words.submit):
            # The slider may have moved while the request ran.
            ask(**run, concurrency_limit=_CONCURRENT_REQUESTS, concurrency_id="segment").success(**settle)
        stop.click(handlers.cancel, None, None, **live)
        page.unload(handlers.cancel)
        granularity.input(**settle, trigger_mode="always_last")
        words.change(fragments.chips, words, chips, trigger_mode="always_last", **live)
        strip.click(_picked, None, [photo, words], **live)
        method.change(_chosen, method, [method, granularity, proposals], **live)
        page.load(lambda: (gr.Radio(choices=_available()), fragments.unavailable()), None, [method, absent], **live)
    return page


class _Handlers:
    """The page's events, on top of one engine."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._running = Running()

    def segment(
        self, photo: str | None, words: str, method: str, granularity: float, proposals: str, request: gr.Request
    ) -> Iterator[tuple]:
        news: dict[str, Progress] = {}
        began = time.perf_counter()

        def work(listener: Listener) -> Answer:
            listener(Progress("Reading the photo", 0))
            asked = Request.read(photo, words, method, granularity, proposals)
            listener(Progress("Reading the photo", 1))
            return asked.answer(self._engine, listener)

        try:
            for item in follow(self._running, request.session_hash, work):
                if isinstance(item, Answer):
                    took = fragments.finished(list(news.values()), time.perf_counter() - began)
                    sent = payload(item.result, item.request.photo, item.request.photo.key)
                    yield took, sent, item.request, gr.Button(interactive=False)
                elif item is CANCELLING:
                    yield fragments.status((), "cancelling"), gr.skip(), gr.skip(), gr.Button(interactive=False)
                else:
                    news[item.stage] = item
                    yield fragments.status(list(news.values())), gr.skip(), gr.skip(), gr.Button(interactive=True)
        except Superseded:
            # gradio repeats the last outputs when a request ends; they must not cover those of its successor.
            yield (gr.skip(),) * 4
        except Cancelled:
            yield fragments.status((), "cancelled"), gr.skip(), gr.skip(), gr.Button(interactive=False)
        except Exception as error:  # every failure becomes one sentence on the page
            yield "", gr.skip(), gr.skip(), gr.Button(interactive=False)
            raise toast(error) from error

    def cancel(self, request: gr.Request) -> None:
        self._running.cancel(request.session_hash)

    def change_granularity(self, granularity: float, shown: Request | None, request: gr.Request) -> tuple:
        """Fuse again when the slider differs from what is shown; a running request will look at it when it ends."""
        if shown is None or granularity == shown.options.granularity or self._running.busy(request.session_hash):
            return gr.skip(), gr.skip()
        try:
            changed = replace(shown, options=replace(shown.options, granularity=granularity))
            return payload(changed.answer(self._engine).result, None, changed.photo.key), changed
        except Exception as error:  # every failure becomes one sentence on the page
            raise toast(error) from error

    def file(self, kind: str, shown: Request | None) -> str:
        """The path of one file of the result that is shown; its stages are cached, so this is fast."""
        if shown is None:
            raise toast(UserError("Segment a photo first, or again: results are forgotten after an hour."))
        try:
            return _files(shown.answer(self._engine), [kind])[0]
        except Exception as error:  # every failure becomes one sentence on the page
            raise toast(error) from error

    def api(
        self, photo: str | None, vocabulary: str, method: str, granularity: float, proposals: str
    ) -> tuple[str, str, str]:
        """Segment a photo with your own words.

        Returns the overlay PNG, the label PNG (class indices, 255 where unlabelled) and a JSON file with shares,
        confidences and COCO run lengths of every class found.
        """
        try:
            answer = Request.read(photo, vocabulary, method, granularity, proposals).answer(self._engine)
            return tuple(_files(answer, ["overlay", "labels", "json"]))
        except Exception as error:  # every failure becomes one sentence for the caller
            raise gr.Error(told(error), print_exception=False) from error


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _available() -> list[tuple[str, str]]:
    return [(entry.title, entry.id) for entry in methods.REGISTRY.values() if not entry.missing()]


def _chosen(method: str) -> tuple[dict, dict, dict]:
    """The summary of the method, and the settings only where they do something."""
    entry = methods.get(method)
    return gr.Radio(info=entry.summary), gr.Slider(visible=entry.uses_masks), gr.Radio(visible=entry.uses_masks)


def _picked(event: gr.EventData) -> tuple[str, str]:
    example = gallery.examples()[int(event.example)]
    return str(example.path), example.words


def _files(answer: Answer, kinds: Sequence[str]) -> list[str]:
    """Written beside those of other requests, which go when they are old; gradio hands out copies of its own."""
    for old in _EXPORTS.iterdir():
        with suppress(FileNotFoundError):  # another request may be doing the same
            if time.time() - old.stat().st_mtime > _FILE_AGE_SECONDS:
                shutil.rmtree(old)
    folder, asked = Path(tempfile.mkdtemp(dir=_EXPORTS)), answer.request
    return [
        str(path)
        for path in export.write(
            folder, "segmentation", asked.photo, answer.result, asked.vocabulary, asked.method, asked.options, kinds
        )
    ]


def _download(handlers: _Handlers, kind: str, title: str, shown: gr.State) -> None:
    """A button that makes one file when it is pressed, not on every slider move, and then hands it over."""
    button = gr.Button(title, size="sm", elem_id=f"make-{kind}")
    ready = gr.DownloadButton(visible="hidden", elem_id=f"file-{kind}")
    made = button.click(partial(handlers.file, kind), shown, ready, api_visibility="private", show_progress="hidden")
    made.success(None, None, None, js=f"() => document.querySelector('#file-{kind}').click()")


def _api(handlers: _Handlers) -> None:
    """The public endpoint /segment: plain inputs, files out."""
    with gr.Row(visible=False):
        inputs = [
            gr.File(label="photo"),
            gr.Textbox(label="vocabulary"),
            gr.Textbox(methods.DEFAULT, label="method"),
            gr.Number(Options.granularity, label="granularity"),
            gr.Textbox(Options.proposals, label="proposals"),
        ]
        outputs = [gr.File(label="overlay"), gr.File(label="labels"), gr.File(label="json")]
        gr.Button().click(
            handlers.api,
            inputs,
            outputs,
            api_name="segment",
            concurrency_limit=_CONCURRENT_REQUESTS,
            concurrency_id="segment",
        )
