"""Components of our own: an HTML file, scripts and the id that joins them to style.css."""

from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).parent / "assets"


def component(name: str, script: str, value: Any = None, **settings: Any) -> gr.HTML:
    """NAME.html, filled by a script, under the id NAME.

    Args:
        name: of the component.
        script: runs when the page shows it; see `script`.
        value: ready for JSON; as any other of the settings, the script has it in `props`.
        settings: of gr.HTML.
    """
    return gr.HTML(
        value,
        html_template=_asset(f"{name}.html"),
        js_on_load=script,
        elem_id=name,
        apply_default_css=False,
        **settings,
    )


def script(*names: str) -> str:
    """Scripts that run as one, after what all components share."""
    return "\n".join(_asset(f"{name}.js") for name in ("common", *names))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
