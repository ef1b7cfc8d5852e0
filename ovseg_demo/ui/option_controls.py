"""The controls of the methods' options, made from their declarations, each shown only where a chosen method has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any, NamedTuple

import gradio as gr
from gradio.components import Component

from ovseg_demo.methods.options import Option, Radio, Slider, SwitchedNumber, SwitchedSlider, WordMarks
from ovseg_demo.ui.components import component, script
from ovseg_demo.ui.page_request import class_names, control_keys, shown_options
from ovseg_demo.vocabulary import MAX_CLASSES

ONLY_SEGMENT, ONLY_COMPARE = "only-segment", "only-compare"
"""Classes of what belongs to one task; style.css hides it during the other."""

_EACH_METHOD_CHOOSES = "<p class='reason'>Each method chooses its own; see the legend.</p>"

_NOTHING = ""
"""What gradio's radio buttons say for None, which cannot be the value of a choice."""


OptionComponent = gr.Slider | gr.Checkbox | gr.Radio | gr.Number | gr.HTML
"""What gives the value of an option, or switches it."""


class _Parts(NamedTuple):
    """The components of an option, see `OptionControl`."""

    main: OptionComponent
    switch: gr.Checkbox | None = None
    chosen: gr.Number | None = None
    reason: gr.HTML | None = None


@dataclass(frozen=True)
class OptionControl:
    """The gradio components of one option.

    Attributes:
        key: names the control; the elements' ids begin with it.
        option: the declaration.
        group: holds all components and is hidden where no chosen method has the option.
        main: gives the value.
        switch: leaves the value to the method, or switches the option off; None for an option without such a switch.
        chosen: receives the value that a method has chosen; None for an option that no method chooses.
        reason: shows why the method has chosen the value; None for an option that no method chooses.
    """

    key: str
    option: Option
    group: gr.Column
    main: OptionComponent
    switch: gr.Checkbox | None = None
    chosen: gr.Number | None = None
    reason: gr.HTML | None = None

    @property
    def components(self) -> list[OptionComponent]:
        """The components that the value is read from."""
        return [self.main] if self.switch is None else [self.main, self.switch]

    def value(self, data: Mapping[Component, Any], words: str) -> Any:
        """The value of the option.

        Args:
            data: the values of `components`, by component.
            words: the text of the vocabulary box: the browser remembers ticks of words that were typed before.
        """
        main = data[self.main]
        switched_on = self.switch is not None and bool(data[self.switch])
        match self.option.control:
            case Slider():
                return None if switched_on else main
            case Radio():
                return None if main == _NOTHING else main
            case SwitchedNumber():
                return main if switched_on else None
            case SwitchedSlider():
                return main if switched_on else _range(self.option)[0]
            case WordMarks():
                ticked = frozenset(main or ())
                return None if switched_on else tuple(name for name in class_names(words) if name in ticked)
        return main


class OptionControls:
    """The controls of all options, made within the context of gradio.

    Args:
        words: the text of the vocabulary box when the page opens.
        methods: the methods whose options are shown when the page opens.
    """

    def __init__(self, words: str, methods: Sequence[str]) -> None:
        visible = control_keys(methods)
        self.by_key = {key: _control(key, option, words, key in visible) for key, option in shown_options().items()}

    @property
    def all(self) -> list[OptionControl]:
        """The controls in the order of the page."""
        return list(self.by_key.values())

    @property
    def components(self) -> list[Component]:
        """The components that all values are read from."""
        return [component for control in self.all for component in control.components]

    @property
    def live(self) -> list[OptionControl]:
        """The controls whose changes are shown at once."""
        return [control for control in self.all if control.option.control and control.option.control.live]

    @property
    def automatic(self) -> list[OptionControl]:
        """The controls whose value a method may choose."""
        return [control for control in self.all if control.chosen is not None]

    @property
    def word_marks(self) -> list[OptionControl]:
        """The controls with a box for each typed word."""
        return [control for control in self.all if isinstance(control.option.control, WordMarks)]

    @property
    def groups(self) -> list[gr.Column]:
        """The groups of all controls, in the order of `all`."""
        return [control.group for control in self.all]

    def values(self, data: Mapping[Component, Any], words: str) -> dict[str, Any]:
        """The values by the controls' keys; see `OptionControl.value` for the arguments."""
        return {control.key: control.value(data, words) for control in self.all}

    def visibility(self, methods: Sequence[str]) -> list[gr.Column]:
        """Updates of `groups`: a group is visible where one of the methods, given by id, has its option."""
        keys = control_keys(methods)
        return [gr.Column(visible=control.key in keys) for control in self.all]

    def word_boxes(self, words: str) -> list[gr.HTML]:
        """Updates of `word_marks` for other words in the vocabulary box; the browser keeps the ticks."""
        return [gr.HTML(names=class_names(words)) for _ in self.word_marks]


def _control(key: str, option: Option, words: str, visible: bool) -> OptionControl:
    kind = type(option.control).__name__.lower()
    # Groups are hidden as a whole: a component that an event updates, or skips, is made anew by gradio, and what is set
    # here would be lost.
    with gr.Column(elem_id=f"option-{key}", elem_classes=["option", f"option-{kind}"], visible=visible) as group:
        parts = _parts(key, option, words)
    return OptionControl(key, option, group, *parts)


def _parts(key: str, option: Option, words: str) -> _Parts:
    match option.control:
        case Slider() as slider:
            return _slider(key, option, slider)
        case Radio() as radio:
            return _radio(key, option, radio)
        case SwitchedNumber() as number:
            return _switched_number(key, option, number)
        case SwitchedSlider() as slider:
            return _switched_slider(key, option, slider)
        case WordMarks() as marks:
            return _word_marks(key, option, marks, words)
    return _checkbox(key, option)


def _slider(key: str, option: Option, control: Slider) -> _Parts:
    minimum, maximum = _range(option)
    start = minimum if option.default is None else option.default
    main = gr.Slider(
        minimum,
        maximum,
        start,
        step=max(1, round(control.step)) if option.whole else control.step,
        label=option.label,
        info=option.help,
        elem_id=key,
        buttons=[],
    )
    _clamp(main, minimum, maximum, start, option.whole)
    if not control.automatic:
        return _Parts(main)
    switch = gr.Checkbox(option.default is None, label=control.automatic, elem_id=f"{key}-switch", container=False)
    reason = gr.HTML("", elem_id=f"{key}-reason", elem_classes=ONLY_SEGMENT, apply_default_css=False)
    gr.HTML(_EACH_METHOD_CHOOSES, elem_classes=[ONLY_COMPARE, "each-method-chooses"], apply_default_css=False)
    return _Parts(main, switch, gr.Number(None, visible=False), reason)


def _checkbox(key: str, option: Option) -> _Parts:
    main = gr.Checkbox(option.default, label=option.label, elem_id=key, container=False)
    _help(option.help)
    return _Parts(main)


def _radio(key: str, option: Option, control: Radio) -> _Parts:
    choices, start = [(choice, choice) for choice in option.choices], option.default
    if start is None:
        choices, start = [(control.nothing, _NOTHING), *choices], _NOTHING
    with gr.Row(elem_classes="option-row"):
        _label(option.label, option.help)
        main = gr.Radio(choices, value=start, label=option.label, elem_id=key, container=False)
    return _Parts(main)


def _switched_number(key: str, option: Option, control: SwitchedNumber) -> _Parts:
    with gr.Row(elem_classes="option-row"):
        switch = gr.Checkbox(option.default is not None, label=option.label, elem_id=f"{key}-switch", container=False)
        _label(control.label, option.help)
        spoken = f"{option.label}: {control.label}"  # screen readers read it; what is seen stands before the number
        main = gr.Number(control.start, label=spoken, minimum=1, precision=0, elem_id=key, container=False)
    _clamp(main, 1, MAX_CLASSES, control.start, whole=True)
    return _Parts(main, switch)


def _switched_slider(key: str, option: Option, control: SwitchedSlider) -> _Parts:
    minimum, maximum = _range(option)
    on = option.default != minimum
    switch = gr.Checkbox(on, label=option.label, elem_id=f"{key}-switch", container=False)
    with gr.Row(elem_classes=["option-row", "while-switched-on"]):
        _label(control.label, option.help)
        spoken = f"{option.label}: {control.label}"  # screen readers read it; what is seen stands before the slider
        main = gr.Slider(
            minimum, maximum, option.default, step=control.step, label=spoken, elem_id=key, container=False, buttons=[]
        )
    _clamp(main, minimum, maximum, option.default, option.whole)
    return _Parts(main, switch)


def _word_marks(key: str, option: Option, control: WordMarks, words: str) -> _Parts:
    with gr.Row(elem_classes="option-row"):
        _label(option.label)
        switch = gr.Checkbox(option.default is None, label=control.unmarked, elem_id=f"{key}-switch", container=False)
    # Not gradio's own group of boxes, which refuses a mark that comes from the browser after its word has gone.
    main = component("word_marks", script("word_marks"), [], elem_id=key, label=option.label, names=class_names(words))
    _help(control.unmarked_help, "while-switched-on")
    _help(option.help, "while-switched-off")
    return _Parts(main, switch)


def _range(option: Option) -> tuple[float, float]:
    """The least and the greatest value of a number; 0 and 1 where an option does not limit it."""
    return option.minimum or 0, 1 if option.maximum is None else option.maximum


def _label(text: str, tooltip: str = "") -> None:
    """The visible label of a row, with the option's help where a pointer rests on it."""
    title = f" title='{escape(tooltip, quote=True)}'" if tooltip else ""
    gr.HTML(f"<span{title}>{escape(text)}</span>", elem_classes="option-label", apply_default_css=False)


def _help(text: str, *classes: str) -> None:
    """A sentence below a control."""
    gr.HTML(f"<p class='reason'>{escape(text)}</p>", elem_classes=list(classes), apply_default_css=False)


def _clamp(number: gr.Slider | gr.Number, minimum: float, maximum: float, start: float, whole: bool) -> None:
    """Let a number box take anything and mean the nearest allowed value; gradio would answer with a traceback.

    Args:
        number: the component of the number box.
        minimum, maximum: limits of the value.
        start: the value of an empty box.
        whole: whether the value is a whole number.
    """

    def nearest(payload: float | None) -> float:
        value = start if payload is None else min(max(payload, minimum), maximum)
        return round(value) if whole else value

    number.preprocess = nearest
