"""What happens when a person uses the page: which event calls what, with the values of which components."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import gradio as gr
from gradio.components import Component
from gradio.events import Dependency

from ovseg_demo.methods import registry
from ovseg_demo.ui import fragments, gallery
from ovseg_demo.ui.comparison import MIN_METHODS
from ovseg_demo.ui.handlers import Handlers, LiveUpdate
from ovseg_demo.ui.layout import Layout, available_methods
from ovseg_demo.ui.option_controls import OptionComponent, OptionControl
from ovseg_demo.ui.page_request import PageRequest

Values = Mapping[Component, Any]
"""The values of components, as gradio hands them to an event whose inputs are a set."""

REQUEST_QUEUE: dict[str, Any] = {"concurrency_limit": 16, "concurrency_id": "segment"}
"""Requests accepted at once. Slow stages still run one by one; the other requests wait visibly and can be cancelled."""

_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}
_AT_ONCE: dict[str, Any] = {**_PRIVATE, "queue": False}
_REQUEST: dict[str, Any] = {**_PRIVATE, **REQUEST_QUEUE, "trigger_mode": "multiple"}

_PRESS_START = (
    "() => document.querySelector(document.body.dataset.task === 'compare' ? '#compare-start' : '#segment').click()"
)
_SHOW_CHOSEN = "(automatic, value, chosen) => (automatic && chosen !== null ? chosen : value)"
"""The slider takes the value that was chosen; in the browser, which knows whether it has been moved since."""

_SWITCH_OFF = "() => false"


class PageEvents:
    """The events of the page.

    Args:
        layout: the components of the page.
        handlers: do the work of the events.
    """

    def __init__(self, layout: Layout, handlers: Handlers) -> None:
        self._handlers = handlers
        self._layout = layout
        self._form = layout.settings.form
        self._options = self._form.options
        states, results = layout.states, layout.results
        choices = [part for control in self._options.automatic for part in (control.chosen, control.reason)]
        self._live_update: dict[str, Any] = {
            **_AT_ONCE,
            "fn": self._update_live,
            "inputs": {*self._form.inputs, states.task, states.shown},
            "outputs": [results.viewer, states.shown, *choices],
        }
        self._outdated_update: dict[str, Any] = {
            **_AT_ONCE,
            "fn": self._mark_outdated,
            "inputs": {*self._form.inputs, states.shown, states.compared},
            "outputs": layout.actions.outdated,
        }

    def connect(self, page: gr.Blocks) -> None:
        """Connect every event. To be called within the context of the page."""
        self._connect_requests(page)
        self._connect_option_controls()
        self._connect_outdated_marks()
        self._connect_words()
        self._connect_methods()
        self._connect_results()
        page.load(_refresh_methods, None, self._refreshed, **_AT_ONCE)

    # Connections

    def _connect_requests(self, page: gr.Blocks) -> None:
        """The buttons Segment, Compare and Cancel, and leaving the page."""
        actions, results, states = self._layout.actions, self._layout.results, self._layout.states
        segmented = actions.segment.click(
            self._segment,
            self._form.inputs,
            [actions.segment_status, results.viewer, states.shown, results.heat_maps, actions.cancel],
            **_REQUEST,
        )
        compared = actions.compare.click(
            self._compare,
            self._form.inputs,
            [actions.compare_status, results.comparison, states.compared, actions.cancel],
            **_REQUEST,
        )
        for finished in (segmented, compared):
            self._update_after(finished)  # a live control may have moved while the request ran
        actions.cancel.click(self._cancel, None, None, **_AT_ONCE)
        page.unload(self._cancel)

    def _update_after(self, event: Dependency) -> None:
        """After an event, bring the result, the sliders that methods choose, and the outdated marks up to date."""
        event = event.then(**self._live_update)
        for control in self._options.automatic:
            event = _show_chosen(event, control)
        event.then(**self._outdated_update)

    def _connect_option_controls(self) -> None:
        """Show at once what a live control changes; a slider that is moved is no longer left to the method."""
        for control in self._options.automatic:
            # In the browser: a switch that the server moves late would undo what a person has done since.
            _moved(control.main)(None, None, control.switch, js=_SWITCH_OFF, **_AT_ONCE)
        for control in self._options.live:
            if control.chosen is not None:
                self._connect_live_automatic(control)
                continue
            for component in control.components:
                _moved(component)(**self._live_update, trigger_mode="always_last").then(**self._outdated_update)

    def _connect_live_automatic(self, control: OptionControl) -> None:
        """The events of a live slider whose value may be left to the method."""
        assert control.switch is not None

        def update_moved(data: Values, request: gr.Request) -> list:
            return self._update_live(data, request, moved=control)

        moved = {**self._live_update, "fn": update_moved}
        _moved(control.main)(**moved, trigger_mode="always_last").then(**self._outdated_update)
        switched = control.switch.input(**self._live_update, trigger_mode="always_last")
        _show_chosen(switched, control).then(**self._outdated_update)

    def _connect_outdated_marks(self) -> None:
        """Mark a result as outdated when a control moves whose changes it does not show at once."""
        waiting = [c for control in self._options.all if control not in self._options.live for c in control.components]
        form = self._form
        for component in (form.photo, form.words, form.method, form.compared, *waiting):
            component.change(**self._outdated_update, trigger_mode="always_last")

    def _connect_words(self) -> None:
        """The vocabulary box and the example photos."""
        settings, form = self._layout.settings, self._form
        marks = [control.main for control in self._options.word_marks]
        form.words.submit(None, None, None, js=_PRESS_START)
        form.words.change(
            self._read_words, form.words, [settings.chips, *marks], trigger_mode="always_last", **_AT_ONCE
        )
        settings.examples.click(_pick_example, None, [form.photo, form.words], **_AT_ONCE)

    def _connect_methods(self) -> None:
        """The choice of task and methods, on which it depends which options are shown."""
        form, groups = self._form, self._options.groups
        form.method.change(self._choose_method, form.method, [form.method, *groups], **_AT_ONCE)
        form.compared.change(self._options.visibility, form.compared, groups, **_AT_ONCE)
        switched = self._layout.header.select(
            self._switch_task, [form.method, form.compared], [self._layout.states.task, *groups], **_AT_ONCE
        )
        self._update_after(switched)

    def _connect_results(self) -> None:
        """The heat maps of a word, and the files, each written when its button is pressed and then handed over."""
        results, shown = self._layout.results, self._layout.states.shown
        results.heat_maps.select(
            self._handlers.draw_heat_maps, shown, results.heat_maps, trigger_mode="multiple", **_AT_ONCE
        )
        for download in results.downloads:
            write = partial(self._handlers.write_file, download.kind)
            written = download.make.click(write, shown, download.file, **_PRIVATE)
            written.success(None, None, None, js=f"() => document.querySelector('#{download.file_id}').click()")

    @property
    def _refreshed(self) -> list[Component]:
        """The outputs of `_refresh_methods`."""
        settings, form = self._layout.settings, self._form
        compare = self._layout.actions.compare
        return [form.method, form.compared, settings.unavailable, settings.comparison_hint, compare]

    # What the events call

    def _segment(self, data: Values, request: gr.Request) -> Iterator[tuple]:
        yield from self._handlers.segment(self._form.read(data), _tab(request))

    def _compare(self, data: Values, request: gr.Request) -> Iterator[tuple]:
        yield from self._handlers.compare(self._form.read(data, compare=True), _tab(request))

    def _cancel(self, request: gr.Request) -> None:
        self._handlers.cancel(_tab(request))

    def _update_live(self, data: Values, request: gr.Request, moved: OptionControl | None = None) -> list:
        """Show what the live controls change.

        Args:
            data: the values of the form and of the states.
            request: of the browser tab.
            moved: a control whose value a person has just set, whatever its switch still says.

        Returns:
            the viewer's value, the shown result, and for each option that a method may choose its value and the reason.
        """
        states, page = self._layout.states, self._form.read(data)
        if moved is not None:
            page = page.with_values({moved.key: data[moved.main]})
        live_keys = [control.key for control in self._options.live]
        update = self._handlers.update_live(page, live_keys, data[states.task], data[states.shown], _tab(request))
        choices = [part for control in self._options.automatic for part in _choice(control, page, update)]
        return [update.viewer, update.shown, *choices]

    def _mark_outdated(self, data: Values) -> str:
        states, compared = self._layout.states, data[self._form.compared] or []
        return self._handlers.outdated(self._form.read(data), compared, data[states.shown], data[states.compared])

    def _read_words(self, words: str) -> list:
        """The chips of the words, and their boxes among the options."""
        return [fragments.chips(words), *self._options.word_boxes(words)]

    def _choose_method(self, method: str) -> list:
        """The method's summary, and its options."""
        return [gr.Radio(info=registry.get(method).summary), *self._options.visibility([method])]

    def _switch_task(self, method: str, compared: Sequence[str], event: gr.EventData) -> list:
        """The task of the tab that was chosen, and the options of its methods."""
        return [event.task, *self._options.visibility(compared if event.task == "compare" else [method])]


def _tab(request: gr.Request) -> str:
    """The id of the browser tab that an event comes from."""
    assert request.session_hash is not None, "an event of the page comes from a browser tab"
    return request.session_hash


def _moved(component: OptionComponent) -> Callable[..., Dependency]:
    """The event that a person, and not the server, has set the value of a component."""
    # The word marks are a gr.HTML, whose script only ever tells a change, and only a person's.
    return component.change if isinstance(component, gr.HTML) else component.input


def _show_chosen(event: Dependency, control: OptionControl) -> Dependency:
    """After an event, let a slider take the value that the method has chosen."""
    assert control.switch is not None  # a method may choose the value of the option
    assert control.chosen is not None
    return event.then(None, [control.switch, control.main, control.chosen], control.main, js=_SHOW_CHOSEN, **_PRIVATE)


def _choice(control: OptionControl, page: PageRequest, update: LiveUpdate) -> tuple[float | None, Any]:
    """The value that a method has chosen for an option, or None, and the reason as HTML.

    The reason stays as it is where the option is left to the method and no result is shown that could tell it.
    """
    left_to_method = page.values[control.key] is None
    if left_to_method and update.chosen is None:
        return None, gr.skip()
    choice = (update.chosen or {}).get(control.key) if left_to_method else None
    return (round(choice.value, 2), fragments.reason(choice.reason)) if choice else (None, fragments.reason(""))


def _refresh_methods() -> tuple:
    """What depends on the weights that are here, which may have come since the page was built."""
    available = available_methods()
    return (
        gr.Radio(choices=available),
        gr.CheckboxGroup(choices=available),
        fragments.unavailable_methods(),
        fragments.comparison_hint(),
        gr.Button(interactive=len(available) >= MIN_METHODS),
    )


def _pick_example(event: gr.EventData) -> tuple[str, str]:
    """The photo and the words of the example that was clicked."""
    example = gallery.examples()[int(event.example)]
    return str(example.path), example.words
