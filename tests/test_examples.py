"""What the documentation shows runs: the Python blocks of the README, and every example of a docstring."""

import doctest
import json
import re
import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ovseg_demo
from ovseg_demo.ui import gallery

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("ovseg_demo", "train", "eval")


def modules_with_examples() -> list[str]:
    """The modules that have a docstring with an example, by name."""
    paths = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
    names = [".".join(p.relative_to(ROOT).with_suffix("").parts) for p in paths if ">>>" in p.read_text("utf-8")]
    return [name.removesuffix(".__init__") for name in names]


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """The current folder of the examples, with the files that they name: a photo and a labelled folder."""
    shutil.copy(gallery.FOLDER / "cat_and_parakeet.jpg", tmp_path / "photo.jpg")
    labelled = tmp_path / "my-photos"
    for name in ("images", "masks"):
        (labelled / name).mkdir(parents=True)
    (labelled / "classes.json").write_text('["cat", "wall"]', encoding="utf-8")
    Image.new("RGB", (8, 6)).save(labelled / "images" / "1.png")
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(labelled / "masks" / "1.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("module", modules_with_examples())
def test_the_examples_of_docstrings(module, folder):
    failed, tried = doctest.testmod(import_module(module), optionflags=doctest.NORMALIZE_WHITESPACE)
    assert tried > 0
    assert not failed


def test_no_example_is_skipped():
    for name in modules_with_examples():
        assert "+SKIP" not in Path(import_module(name).__file__).read_text("utf-8"), name


def blocks() -> list[str]:
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL | re.MULTILINE)


def test_the_readme_asks_a_running_demo(folder, server):
    (code,) = [block for block in blocks() if "gradio_client" in block]
    asked = {}
    exec(code.replace("http://127.0.0.1:7860", server), asked)
    assert json.loads(Path(asked["content"]).read_text("utf-8"))["classes"][0]["name"] == "cat"


def test_the_readme_segments_without_a_server(folder, capsys):
    (code,) = [block for block in blocks() if "gradio_client" not in block]
    exec(code, {})
    assert re.search(r"^cat \d+% \d+%$", capsys.readouterr().out, re.MULTILINE)


def test_the_public_api():
    assert {ovseg_demo.Engine.__name__, ovseg_demo.Segmentation.__name__} == {"Engine", "Segmentation"}
    assert ovseg_demo.Vocabulary(("cat",), ((),)).names == ("cat",)
    assert all(hasattr(ovseg_demo, name) for name in ovseg_demo.__all__)
    with pytest.raises(AttributeError, match="'ovseg_demo' has no attribute 'Motor'"):
        _ = ovseg_demo.Motor
