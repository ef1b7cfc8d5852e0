"""The controls of the page that say what a person asks for."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import gradio as gr
from gradio.blocks import Block
from gradio.components import Component

from ovseg_demo.ui.option_controls import OptionControls
from ovseg_demo.ui.page_request import PageRequest


@dataclass(frozen=True)
class Form:
    """The controls of the page that say what a person asks for.

    Attributes:
        photo: the photo.
        words: the vocabulary box.
        method: the method of Segment.
        compared: the methods of Compare.
        options: the controls of the methods' options.
    """

    photo: gr.Image
    words: gr.Textbox
    method: gr.Radio
    compared: gr.CheckboxGroup
    options: OptionControls

    @property
    def inputs(self) -> set[Block]:
        """The components whose values `read` needs.

        They are a set, so that gradio hands an event their values by component and not by position.
        """
        return {self.photo, self.words, self.method, self.compared, *self.options.components}

    def read(self, data: Mapping[Component, Any], compare: bool = False) -> PageRequest:
        """What the controls say.

        Args:
            data: the values of `inputs` by component.
            compare: whether the request is for the methods of Compare instead of the method of Segment.
        """
        words = data[self.words] or ""
        methods = data[self.compared] or [] if compare else [data[self.method]]
        return PageRequest(data[self.photo], words, tuple(methods), self.options.values(data, words))
