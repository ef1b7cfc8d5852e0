"""What the page shows of one method in a comparison."""

from dataclasses import dataclass

from ovseg_demo.runtime.stages import Progress


@dataclass
class Panel:
    """What the page shows of one method.

    Attributes:
        title: of the method.
        state: "waiting", "running", "done", "failed" or "cancelled".
        line: a few words on the state.
        detail: the seconds of each stage.
        reasons: for each option that was left to the method, its label and why the method chose the value.
        progress: the latest progress of the running stage.
        layer: the result as the browser gets it.
    """

    title: str
    state: str = "waiting"
    line: str = "Waiting"
    detail: str = ""
    reasons: tuple[tuple[str, str], ...] = ()
    progress: Progress | None = None
    layer: dict | None = None
