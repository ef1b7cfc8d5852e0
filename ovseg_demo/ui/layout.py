"""What stands where on the page: every component, made within the context of gradio."""

from dataclasses import dataclass

import gradio as gr

from ovseg_demo.methods import registry
from ovseg_demo.ui import fragments, gallery
from ovseg_demo.ui.comparison import MIN_METHODS
from ovseg_demo.ui.components import component, script
from ovseg_demo.ui.form import Form
from ovseg_demo.ui.option_controls import ONLY_COMPARE, ONLY_SEGMENT, OptionControls

_STATE_SECONDS = 3600
"""How long the page remembers which request its result answers."""

_PICK_EXAMPLE = """
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-example]');
  if (button) trigger('click', { example: Number(button.dataset.example) });
});
"""


@dataclass(frozen=True)
class States:
    """What the server remembers of one browser tab.

    Attributes:
        task: "segment" or "compare", the task that the page shows.
        shown: the result of Segment that the page shows, a `ShownResult`; None before there is one.
        compared: the request whose comparison the page shows, a `PageRequest`; None before there is one.
    """

    task: gr.State
    shown: gr.State
    compared: gr.State


@dataclass(frozen=True)
class Settings:
    """The settings of a request.

    Attributes:
        form: the controls whose values make the request.
        examples: the example photos.
        chips: the classes that the words were understood as.
        comparison_hint: what a comparison still needs.
        unavailable: the methods whose weights are absent.
    """

    form: Form
    examples: gr.HTML
    chips: gr.HTML
    comparison_hint: gr.HTML
    unavailable: gr.HTML


@dataclass(frozen=True)
class Actions:
    """The buttons below the settings, with what they do just now.

    Attributes:
        outdated: how the results differ from the settings.
        segment, compare, cancel: the buttons.
        segment_status, compare_status: the progress of each task.
    """

    outdated: gr.HTML
    segment: gr.Button
    compare: gr.Button
    cancel: gr.Button
    segment_status: gr.HTML
    compare_status: gr.HTML


@dataclass(frozen=True)
class Download:
    """A file of the result.

    Attributes:
        kind: a kind of `export.FILE_SUFFIXES`.
        make: the button that a person presses; the file is only then written.
        file: the hidden button that hands the file over.
        file_id: the id of the hidden button's element.
    """

    kind: str
    make: gr.Button
    file: gr.DownloadButton
    file_id: str


@dataclass(frozen=True)
class Results:
    """The results of both tasks.

    Attributes:
        viewer: the result of Segment.
        downloads: its files.
        heat_maps: how the method decided.
        comparison: the results of Compare.
    """

    viewer: gr.HTML
    downloads: tuple[Download, ...]
    heat_maps: gr.HTML
    comparison: gr.HTML


@dataclass(frozen=True)
class Layout:
    """The components of the page that events read or change.

    Attributes:
        header: the head of the page with the tabs of the two tasks.
        settings, actions, results: the parts of the page.
        states: what the server remembers.
    """

    header: gr.HTML
    settings: Settings
    actions: Actions
    results: Results
    states: States


def lay_out() -> Layout:
    """Make all components of the page. To be called within the context of gr.Blocks."""
    states = States(
        gr.State("segment"),
        gr.State(None, time_to_live=_STATE_SECONDS),
        gr.State(None, time_to_live=_STATE_SECONDS),
    )
    header = component("header", script("header"))
    with gr.Row(elem_id="columns"):
        with gr.Column(elem_id="controls", scale=0, min_width=360):
            with gr.Column(elem_id="settings"):
                settings = _settings(gallery.examples()[0])
            actions = _actions()
        with gr.Column(elem_id="results", scale=1):
            results = _results()
    return Layout(header, settings, actions, results, states)


def available_methods() -> list[tuple[str, str]]:
    """Title and id of each method whose weights are here, in the order of the page."""
    return [(spec.title, spec.id) for spec in registry.REGISTRY.values() if not spec.missing()]


def _settings(example: gallery.Example) -> Settings:
    photo = _photo(example)
    examples = gr.HTML(
        fragments.example_buttons(), js_on_load=_PICK_EXAMPLE, elem_id="examples", apply_default_css=False
    )
    words = gr.Textbox(
        example.words,
        label="Words to find",
        placeholder="cat, sofa|couch, window",
        lines=1,
        max_lines=3,
        elem_id="words",
    )
    chips = gr.HTML(fragments.chips(example.words), elem_id="chips", apply_default_css=False)
    method, compared = _methods()
    comparison_hint = gr.HTML(
        fragments.comparison_hint(), elem_id="comparison-hint", elem_classes=ONLY_COMPARE, apply_default_css=False
    )
    unavailable = gr.HTML(fragments.unavailable_methods(), elem_id="unavailable", apply_default_css=False)
    form = Form(photo, words, method, compared, OptionControls(example.words, [registry.DEFAULT]))
    return Settings(form, examples, chips, comparison_hint, unavailable)


def _photo(example: gallery.Example) -> gr.Image:
    photo = gr.Image(
        str(example.path),
        type="filepath",
        label="Photo",
        sources=["upload", "webcam", "clipboard"],
        height=124,
        elem_id="photo",
        buttons=[],
    )
    # gradio would decode the file itself, and fail with a traceback on what is not an image.
    photo.preprocess = lambda payload: payload and payload.path
    return photo


def _methods() -> tuple[gr.Radio, gr.CheckboxGroup]:
    """The method of Segment and the methods of Compare."""
    available = available_methods()
    method = gr.Radio(
        available,
        value=registry.DEFAULT,
        label="Method",
        info=registry.get(registry.DEFAULT).summary,
        elem_id="method",
        elem_classes=ONLY_SEGMENT,
    )
    compared = gr.CheckboxGroup(
        available,
        value=[method_id for _, method_id in available[:MIN_METHODS]],
        label="Methods to compare",
        info="Two to four.",
        elem_id="compared",
        elem_classes=ONLY_COMPARE,
    )
    return method, compared


def _actions() -> Actions:
    outdated = gr.HTML("", elem_id="outdated", apply_default_css=False)
    with gr.Row(elem_id="actions"):
        segment = gr.Button("Segment", variant="primary", elem_id="segment", elem_classes=ONLY_SEGMENT, scale=3)
        compare = gr.Button("Compare", variant="primary", elem_id="compare-start", elem_classes=ONLY_COMPARE, scale=3)
        cancel = gr.Button("Cancel", elem_id="cancel", interactive=False, scale=1, min_width=80)
    segment_status = gr.HTML("", elem_id="status", elem_classes=ONLY_SEGMENT, apply_default_css=False)
    compare_status = gr.HTML("", elem_id="compare-status", elem_classes=ONLY_COMPARE, apply_default_css=False)
    return Actions(outdated, segment, compare, cancel, segment_status, compare_status)


def _results() -> Results:
    viewer = component("viewer", script("layers", "viewer"), elem_classes=ONLY_SEGMENT)
    with gr.Row(elem_id="downloads", elem_classes=ONLY_SEGMENT):
        downloads = (
            _download("labels", "Label PNG"),
            _download("overlay", "Overlay PNG"),
            _download("json", "JSON (COCO RLE)"),
        )
    heat_maps = component("evidence", script("evidence"), elem_classes=ONLY_SEGMENT)
    comparison = component("compare", script("layers", "linked", "compare"), elem_classes=ONLY_COMPARE)
    return Results(viewer, downloads, heat_maps, comparison)


def _download(kind: str, title: str) -> Download:
    make = gr.Button(title, size="sm", elem_id=f"make-{kind}")
    file_id = f"file-{kind}"
    return Download(kind, make, gr.DownloadButton(visible="hidden", elem_id=file_id), file_id)
