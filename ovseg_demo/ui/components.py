"""Components of our own: an HTML file, scripts and the id that joins them to style.css."""

import re
from pathlib import Path
from typing import Any

import gradio as gr

ASSETS = Path(__file__).parent / "assets"

_IMPORT = re.compile(r'^import \{[^}]*\} from "\./(\w+)\.js";\n', re.MULTILINE)
_EXPORT = re.compile(r"^export ", re.MULTILINE)


def component(name: str, script: str, value: Any = None, elem_id: str | None = None, **settings: Any) -> gr.HTML:
    """A component of the page: NAME.html, filled by a script.

    Args:
        name: of the HTML file.
        script: runs when the page shows the component; see `script`.
        value: ready for JSON; like the other settings, the script has it in `props`.
        elem_id: the id of the element; None is the name.
        settings: of gr.HTML.
    """
    return gr.HTML(
        value,
        html_template=_asset(f"{name}.html"),
        js_on_load=script,
        elem_id=elem_id or name,
        apply_default_css=False,
        **settings,
    )


def script(*names: str) -> str:
    """Scripts that run as one inside a component, after what all components share.

    A component runs its script as the body of a function, where nothing can be imported. So the modules that a script
    imports, those of pure functions, stand before it, once each.
    """
    texts: dict[str, str] = {}
    for name in ("common", *names):
        _add_script(name, texts)
    return "\n".join(texts.values())


def _add_script(name: str, texts: dict[str, str]) -> None:
    """Add a script by name to the texts, and before it the modules that it imports."""
    text = _asset(f"{name}.js")
    for imported in _IMPORT.findall(text):
        if imported not in texts:
            _add_script(imported, texts)
    texts[name] = _EXPORT.sub("", _IMPORT.sub("", text))


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
