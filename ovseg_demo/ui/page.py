"""Layout of the page and the wiring of its events."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component

from ovseg_demo.engine import Engine
from ovseg_demo.methods import registry
from ovseg_demo.ui import fragments, gallery
from ovseg_demo.ui.comparison import LEAST
from ovseg_demo.ui.components import ASSETS, component, script
from ovseg_demo.ui.handlers import FILE_AGE_SECONDS, Handlers
from ovseg_demo.ui.option_controls import ONLY_COMPARE, ONLY_SEGMENT, OptionControls
from ovseg_demo.ui.page_request import PageRequest

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


class Form:
    """The controls of the page that say what a person asks for.

    Attributes:
        photo, words, method, compared: the photo, the vocabulary box, the method of Segment and those of Compare.
        options: the controls of the methods' options.
    """

    def __init__(
        self,
        photo: gr.Image,
        words: gr.Textbox,
        method: gr.Radio,
        compared: gr.CheckboxGroup,
        options: OptionControls,
    ) -> None:
        self.photo, self.words, self.method, self.compared, self.options = photo, words, method, compared, options

    @property
    def inputs(self) -> set[Component]:
        """What `read` needs the values of; a set, so that an event hands them over by component and not by position."""
        return {self.photo, self.words, self.method, self.compared, *self.options.components}

    def read(self, data: Mapping[Component, Any], compare: bool = False) -> PageRequest:
        """What the controls say.

        Args:
            data: the values of `inputs`.
            compare: whether it is asked for by the methods of Compare instead of that of Segment.
        """
        words = data[self.words] or ""
        methods = data[self.compared] or [] if compare else [data[self.method]]
        return PageRequest(data[self.photo], words, tuple(methods), self.options.values(data, words))


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
                    photo.preprocess = lambda payload: payload and payload.path
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
                        value=[method_id for _, method_id in _available()][:LEAST],
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
                    form = Form(photo, words, method, compared, OptionControls(first.words, [registry.DEFAULT]))
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

        options = form.options
        chosen = [part for control in options.chosen for part in (control.chosen, control.reason)]
        live_keys = [control.key for control in options.live]

        def segmenting(data: dict, request: gr.Request) -> Iterator[tuple]:
            yield from handlers.segment(form.read(data), request.session_hash)

        def comparing(data: dict, request: gr.Request) -> Iterator[tuple]:
            yield from handlers.compare(form.read(data, compare=True), request.session_hash)

        def settling(data: dict, request: gr.Request, by_hand: str | None = None) -> list:
            """As `Handlers.settle`; `by_hand` is the key of a control whose value is no longer left to the method."""
            asked = form.read(data)
            if by_hand is not None:
                asked = asked.with_values({by_hand: data[options.by_key[by_hand].main]})
            settled = handlers.settle(asked, live_keys, data[task], data[shown], request.session_hash)
            outputs = [settled.viewer, settled.shown]
            for control in options.chosen:
                left = asked.values[control.key] is None
                choice = (settled.chosen or {}).get(control.key) if left else None
                outputs.append(None if choice is None else round(choice.value, 2))
                known = settled.chosen is not None or not left
                outputs.append(fragments.reason(choice.reason if choice else "") if known else gr.skip())
            return outputs

        def cancelling(request: gr.Request) -> None:
            handlers.cancel(request.session_hash)

        def telling(data: dict) -> str:
            return handlers.outdated(form.read(data), data[compared] or [], data[shown], data[compared_as])

        quiet = {"api_visibility": "private", "show_progress": "hidden"}
        live = quiet | {"queue": False}
        run = quiet | {
            "trigger_mode": "multiple",
            "concurrency_limit": _CONCURRENT_REQUESTS,
            "concurrency_id": "segment",
        }
        settle = live | {
            "fn": settling,
            "inputs": {*form.inputs, task, shown},
            "outputs": [viewer, shown, *chosen],
        }
        tell = live | {"fn": telling, "inputs": {*form.inputs, shown, compared_as}, "outputs": outdated}

        def settled_after(event: Any) -> None:
            """Settle, let the sliders take the values that were chosen, and tell what is outdated."""
            event = event.then(**settle)
            for control in options.chosen:
                event = event.then(
                    None, [control.switch, control.main, control.chosen], control.main, js=_FOLLOW, **quiet
                )
            event.then(**tell)

        segmented = start.click(segmenting, form.inputs, [status, viewer, shown, inside, stop], **run)
        done = compare.click(comparing, form.inputs, [compare_status, comparison, compared_as, stop], **run)
        for ended in (segmented, done):
            settled_after(ended)  # a live control may have moved while the request ran
        words.submit(None, None, None, js=_PRESS)
        stop.click(cancelling, None, None, **live)
        page.unload(cancelling)
        _wire_live_controls(options, settling, settle, tell)
        waiting = [part for control in options.all if control not in options.live for part in control.components]
        for control in (photo, words, method, compared, *waiting):
            control.change(**tell, trigger_mode="always_last")
        marks = [control.main for control in options.word_marks]
        words.change(
            lambda text: [fragments.chips(text), *options.typed(text)],
            words,
            [chips, *marks],
            trigger_mode="always_last",
            **live,
        )
        strip.click(_picked, None, [photo, words], **live)
        inside.select(handlers.look, shown, inside, trigger_mode="multiple", **live)
        method.change(
            lambda chosen: [gr.Radio(info=registry.get(chosen).summary), *options.fitting([chosen])],
            method,
            [method, *options.groups],
            **live,
        )
        compared.change(options.fitting, compared, options.groups, **live)

        def turned(method: str, compared: Sequence[str], event: gr.EventData) -> list:
            """The task that is turned to, and the options of its methods."""
            return [event.task, *options.fitting(compared if event.task == "compare" else [method])]

        settled_after(header.select(turned, [method, compared], [task, *options.groups], **live))
        page.load(_refreshed, None, [method, compared, absent, comparable, compare], **live)
    return page


def _wire_live_controls(options: OptionControls, settling: Callable, settle: dict, tell: dict) -> None:
    """Show at once what a live control changes; a value that is set by hand is no longer left to the method."""
    for control in options.live:
        if control.switch is None:
            control.main.input(**settle, trigger_mode="always_last").then(**tell)
            continue

        def by_hand(data: dict, request: gr.Request, key: str = control.key) -> list:
            return [False, *settling(data, request, key)]

        outputs = [control.switch, *settle["outputs"]]
        moved = {**settle, "fn": by_hand, "outputs": outputs}
        control.main.input(**moved, trigger_mode="always_last").then(**tell)
        event = control.switch.input(**settle, trigger_mode="always_last")
        if control.chosen is not None:
            event = event.then(None, [control.switch, control.main, control.chosen], control.main, js=_FOLLOW)
        event.then(**tell)


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
    """The public endpoints: /segment, plain inputs and files out, and /methods."""
    with gr.Row(visible=False):
        inputs = [
            gr.File(label="photo"),
            gr.Textbox(label="vocabulary"),
            gr.Textbox(registry.DEFAULT, label="method"),
            gr.JSON(None, label="options"),
            gr.Textbox(None, label="proposals"),
        ]
        outputs = [gr.File(label="overlay"), gr.File(label="labels"), gr.File(label="json")]
        gr.Button().click(
            handlers.api_segment,
            inputs,
            outputs,
            api_name="segment",
            concurrency_limit=_CONCURRENT_REQUESTS,
            concurrency_id="segment",
        )
        gr.Button().click(handlers.api_methods, None, gr.JSON(label="methods"), api_name="methods", queue=False)
