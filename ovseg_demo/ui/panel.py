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
        reason: why the values of its options were chosen; empty where a person set all of them.
        progress: the latest progress of the running stage.
        layer: the result as the browser gets it.
    """

    title: str
    state: str = "waiting"
    line: str = "Waiting"
    detail: str = ""
    reason: str = ""
    progress: Progress | None = None
    layer: dict | None = None
