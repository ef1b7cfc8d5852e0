"""Where things lie, whatever folder a test is in."""

from pathlib import Path

import ovseg_demo

ROOT = Path(__file__).resolve().parents[2]
"""The repository."""

FIXTURES = ROOT / "tests" / "fixtures"
"""Numbers made with reference implementations."""

GALLERY = Path(ovseg_demo.__file__).parent / "ui" / "gallery"
"""The photos that ship with the demo."""
