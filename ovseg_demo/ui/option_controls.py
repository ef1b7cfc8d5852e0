"""The controls of the methods' options, made from their declarations, each shown only where a chosen method has it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import gradio as gr
from gradio.components import Component

from ovseg_demo.methods.options import Checkbox, Option, Radio, Slider, SwitchedNumber, WordMarks
from ovseg_demo.ui.components import component, script
from ovseg_demo.ui.page_request import class_names, keys_of, shown_options
from ovseg_demo.vocabulary import MAX_CLASSES

ONLY_SEGMENT, ONLY_COMPARE = "only-segment", "only-compare"
"""Classes of what belongs to one task; style.css hides it during the other."""

_EACH_CHOOSES = "<p class='reason'>Each method chooses its own; see the legend.</p>"


@dataclass(frozen=True)
class OptionControl:
    """The gradio components of one option.

    Attributes:
        key: names the control; the elements' ids begin with it.
        option: the declaration.
        group: holds everything and is hidden where no chosen method has the option.
        main: gives the value.
        switch: leaves the value to the method, or switches it off; None for an option without such a switch.
        chosen: receives the value that a method has chosen; None for an option that no method chooses.
        reason: shows why the method has chosen it, likewise.
    """

    key: str
    option: Option
    group: gr.Column
    main: Component
    switch: gr.Checkbox | None = None
    chosen: gr.Number | None = None
    reason: gr.HTML | None = None

    @property
    def components(self) -> list[Component]:
        """What the value is read from."""
        return [self.main] if self.switch is None else [self.main, self.switch]

    def value(self, data: Mapping[Component, Any], words: str) -> Any:
        """The value of the option.

        Args:
            data: what the components say.
            words: the text of the vocabulary box: the browser remembers ticks of words that were typed before.
        """
        main, control = data[self.main], self.option.control
        switched = self.switch is not None and bool(data[self.switch])
        if isinstance(control, Slider):
            return None if switched else main
        if isinstance(control, SwitchedNumber):
            return main if switched else None
        if isinstance(control, WordMarks):
            ticked = frozenset(main or ())
            return None if switched else tuple(name for name in class_names(words) if name in ticked)
        return main


class OptionControls:
    """The controls of all options, made within the context of gradio.

    Args:
        words: the text of the vocabulary box when the page opens.
        methods: the methods whose options are shown when it opens.
    """

    def __init__(self, words: str, methods: Sequence[str]) -> None:
        visible = keys_of(methods)
        self.by_key = {key: _control(key, option, words, key in visible) for key, option in shown_options().items()}

    @property
    def all(self) -> list[OptionControl]:
        return list(self.by_key.values())

    @property
    def components(self) -> list[Component]:
        """What all values are read from."""
        return [each for control in self.all for each in control.components]

    @property
    def live(self) -> list[OptionControl]:
        """The controls whose changes are shown at once."""
        return [control for control in self.all if control.option.control and control.option.control.live]

    @property
    def chosen(self) -> list[OptionControl]:
        """The controls whose value a method may choose."""
        return [control for control in self.all if control.chosen is not None]

    @property
    def word_marks(self) -> list[OptionControl]:
        """The controls with a box for each typed word."""
        return [control for control in self.all if isinstance(control.option.control, WordMarks)]

    @property
    def groups(self) -> list[gr.Column]:
        return [control.group for control in self.all]

    def values(self, data: Mapping[Component, Any], words: str) -> dict[str, Any]:
        """The values by the controls' keys; see `OptionControl.value` for the arguments."""
        return {control.key: control.value(data, words) for control in self.all}

    def fitting(self, methods: Sequence[str]) -> list[gr.Column]:
        """Updates of all groups: each is visible where one of the methods has its option."""
        keys = keys_of(methods)
        return [gr.Column(visible=control.key in keys) for control in self.all]

    def typed(self, words: str) -> list[gr.HTML]:
        """Updates of the boxes for other words; the browser keeps the ticks that were made."""
        return [gr.HTML(names=class_names(words)) for _ in self.word_marks]


def _control(key: str, option: Option, words: str, visible: bool) -> OptionControl:
    makers = {
        Slider: _slider,
        Checkbox: _checkbox,
        Radio: _radio,
        SwitchedNumber: _switched_number,
        WordMarks: _word_marks,
    }
    kind = type(option.control)
    # Groups are hidden as a whole: a component that an event updates, or skips, is made anew by gradio, and what is set
    # here would be lost.
    with gr.Column(
        elem_id=f"option-{key}", elem_classes=["option", f"option-{kind.__name__.lower()}"], visible=visible
    ) as group:
        parts = makers[kind](key, option, words)
    return OptionControl(key, option, group, **parts)


def _slider(key: str, option: Option, words: str) -> dict[str, Component]:
    control = option.control
    least, greatest = option.least or 0, 1 if option.greatest is None else option.greatest
    start = option.default if option.default is not None else least
    main = gr.Slider(
        least,
        greatest,
        start,
        step=control.step,
        label=option.label,
        info=option.help,
        elem_id=key,
        buttons=[],
    )
    _clamped(main, least, greatest, start, whole=False)
    if not control.automatic:
        return {"main": main}
    switch = gr.Checkbox(option.default is None, label=control.automatic, elem_id=f"{key}-switch", container=False)
    reason = gr.HTML("", elem_id=f"{key}-reason", elem_classes=ONLY_SEGMENT, apply_default_css=False)
    gr.HTML(_EACH_CHOOSES, elem_classes=[ONLY_COMPARE, "each-chooses"], apply_default_css=False)
    chosen = gr.Number(None, visible=False)
    return {"main": main, "switch": switch, "chosen": chosen, "reason": reason}


def _checkbox(key: str, option: Option, words: str) -> dict[str, Component]:
    main = gr.Checkbox(option.default, label=option.label, elem_id=key, container=False)
    _help(option.help)
    return {"main": main}


def _radio(key: str, option: Option, words: str) -> dict[str, Component]:
    with gr.Row(elem_classes="option-row"):
        _label(option.label)
        main = gr.Radio(list(option.choices), value=option.default, label=option.label, elem_id=key, container=False)
    return {"main": main}


def _switched_number(key: str, option: Option, words: str) -> dict[str, Component]:
    control = option.control
    with gr.Row(elem_classes="option-row"):
        switch = gr.Checkbox(option.default is not None, label=option.label, elem_id=f"{key}-switch", container=False)
        _label(control.label)
        main = gr.Number(control.start, label=control.label, minimum=1, precision=0, elem_id=key, container=False)
    _clamped(main, 1, MAX_CLASSES, control.start, whole=True)
    return {"main": main, "switch": switch}


def _word_marks(key: str, option: Option, words: str) -> dict[str, Component]:
    control = option.control
    with gr.Row(elem_classes="option-row"):
        _label(option.label)
        switch = gr.Checkbox(option.default is None, label=control.unmarked, elem_id=f"{key}-switch", container=False)
    # Not gradio's own group of boxes, which refuses a mark that comes from the browser after its word has gone.
    main = component("word_marks", script("word_marks"), [], elem_id=key, label=option.label, names=class_names(words))
    _help(control.unmarked_help, "while-switched-on")
    _help(option.help, "while-switched-off")
    return {"main": main, "switch": switch}


def _label(text: str) -> None:
    gr.HTML(escape(text), elem_classes="option-label", apply_default_css=False)


def _help(text: str, *classes: str) -> None:
    gr.HTML(f"<p class='reason'>{escape(text)}</p>", elem_classes=list(classes), apply_default_css=False)


def _clamped(number: gr.Slider | gr.Number, least: float, greatest: float, start: float, whole: bool) -> None:
    """Let a number box take anything and mean the nearest allowed value; gradio would answer with a traceback."""

    def nearest(typed: float | None) -> float:
        value = start if typed is None else min(max(typed, least), greatest)
        return round(value) if whole else value

    number.preprocess = nearest
