"""The controls of a request's settings, each shown only where a chosen method uses it."""

from collections.abc import Sequence
from dataclasses import dataclass

import gradio as gr

from ovseg_demo.methods.base import PROPOSALS, Options
from ovseg_demo.ui.asked import names, used
from ovseg_demo.ui.components import component, script
from ovseg_demo.vocabulary import MAX_CLASSES

ONLY_SEGMENT, ONLY_COMPARE = "only-segment", "only-compare"
"""Classes of what belongs to one task; style.css hides it during the other."""

_AUTOMATIC = False
"""Whether granularity is chosen automatically until a person moves the slider."""

_BEST = 8
"""k of early rejection until a person sets another: SED's published one."""

_GRANULARITY_HELP = "At 1 each class keeps its best mask only; lower keeps more masks."
_EACH_CHOOSES = "<p class='reason'>Each method chooses its own; see the legend.</p>"
_SEEN_HELP = (
    "<p class='reason trained'>Words that the model was trained with count as seen, all others as new.</p>"
    "<p class='reason marked'>Ticked words count as seen in training, all others as new.</p>"
)
"""For a ticked box, and for one that is not; style.css hides the other."""

_TRUSTY_HELP = "<p class='reason'>Where a region looks new to the model, new words gain and seen ones lose.</p>"


@dataclass(frozen=True)
class Settings:
    """The controls, in the order in which `Asked.of` takes their values, and `groups`, as `fitting` shows them."""

    granularity: gr.Slider
    automatic: gr.Checkbox
    proposals: gr.Radio
    rejecting: gr.Checkbox
    best: gr.Number
    as_trained: gr.Checkbox
    marks: gr.HTML
    trusty: gr.Checkbox
    reason: gr.HTML
    groups: tuple[gr.Column | gr.Row | gr.Radio, ...]

    @property
    def granular(self) -> list[gr.components.Component]:
        return [self.granularity, self.automatic]

    @property
    def others(self) -> list[gr.components.Component]:
        """What takes effect with the next request only."""
        return [self.proposals, self.rejecting, self.best, self.as_trained, self.marks, self.trusty]

    @property
    def all(self) -> list[gr.components.Component]:
        return self.granular + self.others


def build(words: str) -> Settings:
    """The controls, for the words that are typed when the page opens, within the context of gradio."""
    # Groups are hidden as a whole: a component that an event updates, or skips, is made anew by gradio, and what is set
    # here would be lost. Nothing but plain values may go to the slider.
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
        reason = gr.HTML("", elem_id="reason", elem_classes=ONLY_SEGMENT, apply_default_css=False)
        gr.HTML(_EACH_CHOOSES, elem_id="each", elem_classes=ONLY_COMPARE, apply_default_css=False)
    proposals = gr.Radio(
        list(PROPOSALS), value=Options.proposals, label="Mask search", elem_id="proposals", container=False
    )
    with gr.Row(elem_id="rejection", visible=False) as rejection:
        rejecting = gr.Checkbox(False, label="Early rejection", elem_id="rejecting", container=False)
        best = gr.Number(_BEST, label="k", minimum=1, precision=0, elem_id="best", container=False)
        best.preprocess = _at_least_one  # as of the granularity
    with gr.Column(elem_id="seen", visible=False) as seen:
        as_trained = gr.Checkbox(True, label="As trained", elem_id="as-trained", container=False)
        # Not gradio's own group of boxes, which refuses a mark that comes from the browser after its word has gone.
        marks = component("marks", script("marks"), [], names=names(words))
        gr.HTML(_SEEN_HELP, apply_default_css=False)
    with gr.Column(elem_id="weighting", visible=False) as weighting:
        trusty = gr.Checkbox(Options.trusty, label="Trusty weighting", elem_id="trusty", container=False)
        gr.HTML(_TRUSTY_HELP, apply_default_css=False)
    groups = (fusing, proposals, rejection, seen, weighting)
    return Settings(granularity, automatic, proposals, rejecting, best, as_trained, marks, trusty, reason, groups)


def fitting(chosen: Sequence[str]) -> tuple:
    """The groups, each visible only where one of the methods uses it."""
    options = used(chosen)
    return (
        gr.Column(visible="granularity" in options),
        gr.Radio(visible="proposals" in options),
        gr.Row(visible="rejection" in options),
        gr.Column(visible="seen" in options),
        gr.Column(visible="trusty" in options),
    )


def typed(words: str) -> gr.HTML:
    """The marks for other words; the browser keeps those that were made."""
    return gr.HTML(names=names(words))


def _within(granularity: float | None) -> float:
    """The number of the box, or the nearest that is allowed."""
    return Options.granularity if granularity is None else min(max(granularity, 0), 1)


def _at_least_one(number: float | None) -> int:
    """The number of the box, or the nearest that changes something."""
    return _BEST if number is None else round(min(max(1, number), MAX_CLASSES))
