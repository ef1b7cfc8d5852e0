"""Layout of the page and the wiring of its events."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import gradio as gr

from ovseg_demo.engine import Engine
from ovseg_demo.methods import registry
from ovseg_demo.methods.base import Options
from ovseg_demo.ui import fragments, gallery, settings
from ovseg_demo.ui.comparison import LEAST
from ovseg_demo.ui.components import ASSETS, component, script
from ovseg_demo.ui.handlers import FILE_AGE_SECONDS, Handlers
from ovseg_demo.ui.settings import ONLY_COMPARE, ONLY_SEGMENT

_MAX_UPLOAD = "64mb"
"""A 100-megapixel JPEG or a 16-bit PNG of a full-frame camera; more only fills the disk of a small host."""

_SESSION_SECONDS = 3600
_SESSIONS = 500
"""Visits remembered at once; each keeps one photo of at most 3 MB."""

_CONCURRENT_REQUESTS = 16
"""Requests accepted at once. Heavy stages still run one by one; the rest wait visibly and can be cancelled."""

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
        "css_paths": [ASSETS / "style.css"],
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
        header = component("header", script("header"))
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
                        value=registry.DEFAULT,
                        label="Method",
                        info=registry.get(registry.DEFAULT).summary,
                        elem_id="method",
                        elem_classes=ONLY_SEGMENT,
                    )
                    compared = gr.CheckboxGroup(
                        _available(),
                        value=[each for _, each in _available()][:LEAST],
                        label="Methods to compare",
                        info="Two to four.",
                        elem_id="compared",
                        elem_classes=ONLY_COMPARE,
                    )
                    comparable = gr.HTML(
                        fragments.comparable(),
                        elem_id="comparable",
                        elem_classes=ONLY_COMPARE,
                        apply_default_css=False,
                    )
                    absent = gr.HTML(fragments.unavailable(), elem_id="absent", apply_default_css=False)
                    controls = settings.build(first.words)
                outdated = gr.HTML("", elem_id="outdated", apply_default_css=False)
                with gr.Row(elem_id="actions"):
                    start = gr.Button(
                        "Segment", variant="primary", elem_id="segment", elem_classes=ONLY_SEGMENT, scale=3
                    )
                    compare = gr.Button(
                        "Compare", variant="primary", elem_id="compare-start", elem_classes=ONLY_COMPARE, scale=3
                    )
                    stop = gr.Button("Cancel", elem_id="cancel", interactive=False, scale=1, min_width=80)
                status = gr.HTML("", elem_id="status", elem_classes=ONLY_SEGMENT, apply_default_css=False)
                compare_status = gr.HTML(
                    "", elem_id="compare-status", elem_classes=ONLY_COMPARE, apply_default_css=False
                )
            with gr.Column(elem_id="results", scale=1):
                viewer = component("viewer", script("layers", "viewer"), elem_classes=ONLY_SEGMENT)
                with gr.Row(elem_id="downloads", elem_classes=ONLY_SEGMENT):
                    for kind, title in (
                        ("labels", "Label PNG"),
                        ("overlay", "Overlay PNG"),
                        ("json", "JSON (COCO RLE)"),
                    ):
                        _download(handlers, kind, title, shown)
                inside = component("evidence", script("evidence"), elem_classes=ONLY_SEGMENT)
                comparison = component("compare", script("layers", "linked", "compare"), elem_classes=ONLY_COMPARE)
        _api(handlers)

        quiet = {"api_visibility": "private", "show_progress": "hidden"}
        live = quiet | {"queue": False}
        run = quiet | {
            "trigger_mode": "multiple",
            "concurrency_limit": _CONCURRENT_REQUESTS,
            "concurrency_id": "segment",
        }
        settle = live | {
            "fn": handlers.settle,
            "inputs": [photo, words, *controls.granular, task, shown],
            "outputs": [viewer, shown, chosen, controls.reason],
        }
        granularity, automatic = controls.granular
        follow = {"fn": None, "inputs": [automatic, granularity, chosen], "outputs": granularity, "js": _FOLLOW}
        tell = live | {
            "fn": handlers.outdated,
            "inputs": [photo, words, method, compared, shown, compared_as, *controls.all],
            "outputs": outdated,
        }
        segmented = start.click(
            handlers.segment,
            [photo, words, method, *controls.all],
            [status, viewer, shown, inside, stop],
            **run,
        )
        done = compare.click(
            handlers.compare,
            [photo, words, compared, *controls.all],
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
            [viewer, shown, automatic, controls.reason],
            trigger_mode="always_last",
            **live,
        ).then(**tell)
        automatic.input(**settle, trigger_mode="always_last").then(**follow).then(**tell)
        for control in (photo, words, method, compared, *controls.others):
            control.change(**tell, trigger_mode="always_last")
        words.change(_typed, words, [chips, controls.marks], trigger_mode="always_last", **live)
        strip.click(_picked, None, [photo, words], **live)
        inside.select(handlers.look, shown, inside, trigger_mode="multiple", **live)
        groups = list(controls.groups)
        method.change(_chosen, method, [method, *groups], **live)
        compared.change(settings.fitting, compared, groups, **live)
        turned = header.select(_turned, [method, compared], [task, *groups], **live)
        turned.then(**settle).then(**follow).then(**tell)
        page.load(_refreshed, None, [method, compared, absent, comparable, compare], **live)
    return page


def _available() -> list[tuple[str, str]]:
    return [(entry.title, entry.id) for entry in registry.REGISTRY.values() if not entry.missing()]


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
    return gr.Radio(info=registry.get(method).summary), *settings.fitting([method])


def _turned(method: str, compared: Sequence[str], event: gr.EventData) -> tuple:
    """The task that is turned to, and its settings."""
    return event.task, *settings.fitting(compared if event.task == "compare" else [method])


def _typed(words: str) -> tuple:
    """What the words were understood as, and their boxes among the settings."""
    return fragments.chips(words), settings.typed(words)


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
            gr.Textbox(registry.DEFAULT, label="method"),
            gr.Number(Options.granularity, label="granularity"),
            gr.Textbox(Options.proposals, label="proposals"),
            gr.Number(None, label="rejection"),
            gr.Textbox(None, label="seen"),
            gr.Checkbox(Options.trusty, label="trusty"),
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
