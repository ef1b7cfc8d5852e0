"""A method with an option of every kind of control, declared as no bundled method declares them."""

from typing import Annotated, Literal

import numpy as np
from pydantic import Field

from ovseg_demo.methods.base import MethodSpec
from ovseg_demo.methods.options import Checkbox, MethodOptions, Radio, Slider, SwitchedNumber
from ovseg_demo.result import Choice, Segmentation

CHOSEN = 0.25
SURE, UNSURE = 0.9, 0.2


class DeclaredOptions(MethodOptions):
    """Options of all kinds; "granularity" is declared otherwise than OVSeg's."""

    shade: Annotated[Literal["dark", "light"] | None, Radio(nothing="as it is", live=True)] = Field(
        default=None, title="Shade", description="Of 100 % of the photo."
    )
    flipped: Annotated[bool, Checkbox(live=True)] = Field(default=False, title="Flipped", description="Upside down.")
    rows: Annotated[int, Slider(live=True)] = Field(default=2, ge=1, le=9, title="Rows", description="How many rows.")
    fewest: Annotated[int | None, SwitchedNumber("at least", 5, live=True)] = Field(default=None, title="Fewest", ge=1)
    softness: Annotated[float | None, Slider(automatic="By itself")] = Field(default=None, ge=0, le=1, title="Softness")
    granularity: Annotated[Literal["fine", "coarse"], Radio()] = Field(
        default="fine", title="Grain", description="Of a film."
    )


class Declared:
    """Names everything by the first word, of which it is sure in the right half alone; its note tells the options."""

    def segment(self, photo, vocabulary, options, stages) -> Segmentation:
        size = photo.pixels.shape[:2]
        labels, scores = np.zeros(size, np.int32), np.ones(size, np.float32)
        chosen = {"softness": Choice(CHOSEN, "It is soft.")} if options.softness is None else {}
        known = np.full(size, SURE, np.float32)
        known[:, : size[1] // 2] = UNSURE
        presence = np.array([SURE, *[UNSURE] * (len(vocabulary) - 1)], np.float32)
        note = ", ".join(f"{name} {value}" for name, value in options.given().items())
        told = {"chosen": chosen, "notes": (note,), "known": known, "presence": presence}
        return Segmentation(vocabulary.names, labels, scores, labels[None], scores[None], **told)


DECLARED = MethodSpec("declared", "Declared · all", "Made up.", (), lambda _: Declared(), DeclaredOptions)
ABSENT = MethodSpec("absent", "Absent · all", "Made up.", ("clip-vit-b16",), lambda _: Declared(), DeclaredOptions)
