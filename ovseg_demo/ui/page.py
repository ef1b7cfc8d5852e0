"""Layout of the page and the wiring of its events."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import gradio as gr

from ovseg_demo import gallery, methods
from ovseg_demo.engine import Engine
from ovseg_demo.methods.base import PROPOSALS, Options
from ovseg_demo.ui import fragments
from ovseg_demo.ui.asked import used
from ovseg_demo.ui.comparison import LEAST
from ovseg_demo.ui.handlers import FILE_AGE_SECONDS, Handlers
from ovseg_demo.vocabulary import MAX_CLASSES

_ASSETS = Path(__file__).parent / "assets"
_MAX_UPLOAD = "64mb"
"""A 100-megapixel JPEG or a 16-bit PNG of a full-frame camera; more only fills the disk of a small host."""

_SESSION_SECONDS = 3600
_SESSIONS = 500
"""Visits remembered at once; each keeps one photo of at most 3 MB."""

_CONCURRENT_REQUESTS = 16
"""Requests accepted at once. Heavy stages still run one by one; the rest wait visibly and can be cancelled."""

_AUTOMATIC = False
"""Whether granularity is chosen automatically until a person moves the slider."""

_BEST = 8
"""k of early rejection until a person sets another: SED's published one."""

_GRANULARITY_HELP = "At 1 each class keeps its best mask only; lower keeps more masks."
_EACH_CHOOSES = "<p class='reason'>Each method chooses its own; see the legend.</p>"
_ONLY_SEGMENT, _ONLY_COMPARE = "only-segment", "only-compare"
"""Classes of what belongs to one task; style.css hides it during the other."""

_PRESS = (
    "() => document.querySelector(document.body.dataset.task === 'compare' ? '#compare-start' : '#segment').click()"
)
_FOLLOW = "(automatic, value, chosen) => (automatic && chosen !== null ? chosen : value)"
"""The slider takes the value that was chosen; in the browser, which knows whether it has been moved since."""

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
    handlers = Handlers(engine)
    first = gallery.examples()[0]
    with gr.Blocks(
        title="ovseg-demo",
        fill_width=True,
        analytics_enabled=False,
        delete_cache=(FILE_AGE_SECONDS, FILE_AGE_SECONDS),
    ) as page:
        shown = gr.State(None, time_to_live=_SESSION_SECONDS)
        compared_as = gr.State(None, time_to_live=_SESSION_SECONDS)
        chosen = gr.Number(None, visible=False)
        task = gr.State("segment")
        header = _component("header", _script("header"))
        with gr.Row(elem_id="columns"):
            with gr.Column(elem_id="controls", scale=0, min_width=360):
                with gr.Column(elem_id="settings"):
                    photo = gr.Image(
                        str(first.path),
                        type="filepath",
                        label="Photo",
                        sources=["upload", "webcam", "clipboard"],
                        height=136,
                        elem_id="photo",
                        buttons=[],
                    )
                    # gradio would decode the file itself, and fail with a traceback on what is not an image.
                    photo.preprocess = lambda uploaded: uploaded and uploaded.path
                    strip = gr.HTML(
                        fragments.strip(), js_on_load=_PICK_EXAMPLE, elem_id="strip", apply_default_css=False
                    )
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
                        elem_classes=_ONLY_SEGMENT,
                    )
                    compared = gr.CheckboxGroup(
                        _available(),
                        value=[each for _, each in _available()][:LEAST],
                        label="Methods to compare",
                        info="Two to four.",
                        elem_id="compared",
                        elem_classes=_ONLY_COMPARE,
                    )
                    comparable = gr.HTML(
                        fragments.comparable(),
                        elem_id="comparable",
                        elem_classes=_ONLY_COMPARE,
                        apply_default_css=False,
                    )
                    absent = gr.HTML(fragments.unavailable(), elem_id="absent", apply_default_css=False)
                    # Hidden as a whole: a component that an event updates, or skips, is made anew by gradio, and what
                    # is set here would be lost. Nothing but plain values may go to the slider.
                    with gr.Column(elem_id="fusing") as fusing:
                        granularity = gr.Slider(
                            0,
                            1,
                            Options.granularity,
                            step=0.01,
                            label="Granularity",
                            info=_GRANULARITY_HELP,
                            elem_id="granularity",
                            buttons=[],
                        )
                        # The number box takes anything; gradio would answer what is out of range with a traceback.
                        granularity.preprocess = _within
                        automatic = gr.Checkbox(_AUTOMATIC, label="Automatic", elem_id="automatic", container=False)
                        reason = gr.HTML("", elem_id="reason", elem_classes=_ONLY_SEGMENT, apply_default_css=False)
                        gr.HTML(_EACH_CHOOSES, elem_id="each", elem_classes=_ONLY_COMPARE, apply_default_css=False)
                    proposals = gr.Radio(
                        list(PROPOSALS),
                        value=Options.proposals,
                        label="Mask search",
                        elem_id="proposals",
                        container=False,
                    )
                    with gr.Row(elem_id="rejection", visible=False) as rejection:
                        rejecting = gr.Checkbox(False, label="Early rejection", elem_id="rejecting", container=False)
                        best = gr.Number(_BEST, label="k", minimum=1, precision=0, elem_id="best", container=False)
                        best.preprocess = _at_least_one  # as of the granularity
                outdated = gr.HTML("", elem_id="outdated", apply_default_css=False)
                with gr.Row(elem_id="actions"):
                    start = gr.Button(
                        "Segment", variant="primary", elem_id="segment", elem_classes=_ONLY_SEGMENT, scale=3
                    )
                    compare = gr.Button(
                        "Compare", variant="primary", elem_id="compare-start", elem_classes=_ONLY_COMPARE, scale=3
                    )
                    stop = gr.Button("Cancel", elem_id="cancel", interactive=False, scale=1, min_width=80)
                status = gr.HTML("", elem_id="status", elem_classes=_ONLY_SEGMENT, apply_default_css=False)
                compare_status = gr.HTML(
                    "", elem_id="compare-status", elem_classes=_ONLY_COMPARE, apply_default_css=False
                )
            with gr.Column(elem_id="results", scale=1):
                viewer = _component("viewer", _script("layers", "viewer"), elem_classes=_ONLY_SEGMENT)
                with gr.Row(elem_id="downloads", elem_classes=_ONLY_SEGMENT):
                    for kind, title in (
                        ("labels", "Label PNG"),
                        ("overlay", "Overlay PNG"),
                        ("json", "JSON (COCO RLE)"),
                    ):
                        _download(handlers, kind, title, shown)
                inside = _component("evidence", _script("evidence"), elem_classes=_ONLY_SEGMENT)
                comparison = _component("compare", _script("layers", "linked", "compare"), elem_classes=_ONLY_COMPARE)
        _api(handlers)

        quiet = {"api_visibility": "private", "show_progress": "hidden"}
        live = quiet | {"queue": False}
        run = quiet | {
            "trigger_mode": "multiple",
            "concurrency_limit": _CONCURRENT_REQUESTS,
            "concurrency_id": "segment",
        }
        fusing_settings = [granularity, automatic]
        settings = [*fusing_settings, proposals, rejecting, best]
        settle = live | {
            "fn": handlers.settle,
            "inputs": [photo, words, *fusing_settings, task, shown],
            "outputs": [viewer, shown, chosen, reason],
        }
        follow = {"fn": None, "inputs": [automatic, granularity, chosen], "outputs": granularity, "js": _FOLLOW}
        tell = live | {
            "fn": handlers.outdated,
            "inputs": [photo, words, method, compared, *settings, shown, compared_as],
            "outputs": outdated,
        }
        segmented = start.click(
            handlers.segment,
            [photo, words, method, *settings],
            [status, viewer, shown, inside, stop],
            **run,
        )
        done = compare.click(
            handlers.compare,
            [photo, words, compared, *settings],
            [compare_status, comparison, compared_as, stop],
            **run,
        )
        for asked in (segmented, done):
            asked.then(**settle).then(**follow).then(**tell)  # the slider may have moved while the request ran
        words.submit(None, None, None, js=_PRESS)
        stop.click(handlers.cancel, None, None, **live)
        page.unload(handlers.cancel)
        granularity.input(
            handlers.take_over,
            [photo, words, granularity, task, shown],
            [viewer, shown, automatic, reason],
            trigger_mode="always_last",
            **live,
        ).then(**tell)
        automatic.input(**settle, trigger_mode="always_last").then(**follow).then(**tell)
        for control in (photo, words, method, compared, proposals, rejecting, best):
            control.change(**tell, trigger_mode="always_last")
        words.change(fragments.chips, words, chips, trigger_mode="always_last", **live)
        strip.click(_picked, None, [photo, words], **live)
        inside.select(handlers.look, shown, inside, trigger_mode="multiple", **live)
        fitting = [fusing, proposals, rejection]
        method.change(_chosen, method, [method, *fitting], **live)
        compared.change(_settings, compared, fitting, **live)
        header.select(_turned, [method, compared], [task, *fitting], **live).then(**settle).then(**follow).then(**tell)
        page.load(_refreshed, None, [method, compared, absent, comparable, compare], **live)
    return page


def _component(name: str, script: str, **settings: Any) -> gr.HTML:
    """A component of our own: NAME.html, its script, and the id NAME."""
    return gr.HTML(
        value=None,
        html_template=_asset(f"{name}.html"),
        js_on_load=script,
        elem_id=name,
        apply_default_css=False,
        **settings,
    )


def _script(*names: str) -> str:
    """Scripts that run as one, after what all components share."""
    return "\n".join(_asset(f"{name}.js") for name in ("common", *names))


def _asset(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def _available() -> list[tuple[str, str]]:
    return [(entry.title, entry.id) for entry in methods.REGISTRY.values() if not entry.missing()]


def _refreshed() -> tuple:
    """What depends on the weights that are here, which may have come since the page was built."""
    available = _available()
    return (
        gr.Radio(choices=available),
        gr.CheckboxGroup(choices=available),
        fragments.unavailable(),
        fragments.comparable(),
        gr.Button(interactive=len(available) >= LEAST),
    )


def _chosen(method: str) -> tuple:
    """The summary of the method, and its settings."""
    return gr.Radio(info=methods.get(method).summary), *_settings([method])


def _turned(method: str, compared: Sequence[str], event: gr.EventData) -> tuple:
    """The task that is turned to, and its settings."""
    return event.task, *_settings(compared if event.task == "compare" else [method])


def _settings(chosen: Sequence[str]) -> tuple:
    """Each setting visible only where a method uses it: granularity and rejection with all that belongs to them."""
    options = used(chosen)
    return (
        gr.Column(visible="granularity" in options),
        gr.Radio(visible="proposals" in options),
        gr.Row(visible="rejection" in options),
    )


def _within(granularity: float | None) -> float:
    """The number of the box, or the nearest that is allowed."""
    return Options.granularity if granularity is None else min(max(granularity, 0), 1)


def _at_least_one(number: float | None) -> int:
    """The number of the box, or the nearest that changes something."""
    return _BEST if number is None else round(min(max(1, number), MAX_CLASSES))


def _picked(event: gr.EventData) -> tuple[str, str]:
    example = gallery.examples()[int(event.example)]
    return str(example.path), example.words


def _download(handlers: Handlers, kind: str, title: str, shown: gr.State) -> None:
    """A button that makes one file when it is pressed, not on every slider move, and then hands it over."""
    button = gr.Button(title, size="sm", elem_id=f"make-{kind}")
    ready = gr.DownloadButton(visible="hidden", elem_id=f"file-{kind}")
    made = button.click(partial(handlers.file, kind), shown, ready, api_visibility="private", show_progress="hidden")
    made.success(None, None, None, js=f"() => document.querySelector('#file-{kind}').click()")


def _api(handlers: Handlers) -> None:
    """The public endpoint /segment: plain inputs, files out."""
    with gr.Row(visible=False):
        inputs = [
            gr.File(label="photo"),
            gr.Textbox(label="vocabulary"),
            gr.Textbox(methods.DEFAULT, label="method"),
            gr.Number(Options.granularity, label="granularity"),
            gr.Textbox(Options.proposals, label="proposals"),
            gr.Number(None, label="rejection"),
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
