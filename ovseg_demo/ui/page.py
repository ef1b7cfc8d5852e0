"""The page on top of an engine: its layout, its events and its public API."""

from typing import Any

import gradio as gr
from gradio.themes import Base

from ovseg_demo.engine import Engine
from ovseg_demo.methods import registry
from ovseg_demo.ui import gallery
from ovseg_demo.ui.components import ASSETS
from ovseg_demo.ui.events import REQUEST_QUEUE, PageEvents
from ovseg_demo.ui.handlers import FILE_AGE_SECONDS, Handlers
from ovseg_demo.ui.layout import lay_out

_MAX_UPLOAD = "64mb"
"""A 100-megapixel JPEG or a 16-bit PNG of a full-frame camera; more only fills the disk of a small host."""

_SESSIONS = 500
"""Visits remembered at once; each keeps one photo of at most 3 MB."""


def launch_settings() -> dict[str, Any]:
    """Keyword arguments for `Blocks.launch` that the page needs."""
    theme = Base(
        primary_hue="indigo",
        neutral_hue="slate",
        radius_size="lg",
        spacing_size="sm",
        text_size="sm",
        font=("ui-sans-serif", "system-ui", "sans-serif"),
        font_mono=("ui-monospace", "monospace"),
    )
    return {
        "theme": theme,
        "css_paths": [ASSETS / "style.css"],
        "allowed_paths": [str(gallery.FOLDER)],
        "max_file_size": _MAX_UPLOAD,
        "state_session_capacity": _SESSIONS,
        "footer_links": ["api", "settings"],
    }


def build(engine: Engine) -> gr.Blocks:
    """The page, ready to be launched with `launch_settings`.

    Args:
        engine: segments the photos of everybody who visits the page.
    """
    handlers = Handlers(engine)
    with gr.Blocks(
        title="ovseg-demo",
        fill_width=True,
        analytics_enabled=False,
        delete_cache=(FILE_AGE_SECONDS, FILE_AGE_SECONDS),
    ) as page:
        layout = lay_out()
        _add_api(handlers)
        PageEvents(layout, handlers).connect(page)
    return page


def _add_api(handlers: Handlers) -> None:
    """The public endpoints: /segment, plain inputs and files out, and /methods."""
    with gr.Row(visible=False):
        inputs = [
            gr.File(label="photo"),
            gr.Textbox(label="vocabulary"),
            gr.Textbox(registry.DEFAULT, label="method"),
            gr.JSON(None, label="options"),
            gr.Textbox(None, label="proposals"),
        ]
        outputs = [gr.File(label="overlay"), gr.File(label="labels"), gr.File(label="json")]
        gr.Button().click(handlers.api_segment, inputs, outputs, api_name="segment", **REQUEST_QUEUE)
        gr.Button().click(handlers.api_methods, None, gr.JSON(label="methods"), api_name="methods", queue=False)
