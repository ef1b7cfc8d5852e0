"""The memory of the serving process after many large photos."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from eval.benchmark.browser_client import BrowserClient
from eval.benchmark.process import WORDS, server, status
from eval.markdown import table
from ovseg_demo.methods import registry
from ovseg_demo.ui import gallery


def report(photos: int) -> str:
    """The table of `python -m eval.benchmark memory`, after `photos` large photos."""
    with tempfile.TemporaryDirectory() as folder, server() as (url, process):
        visitor, rows = BrowserClient(url), []
        for number, path in enumerate(large_photos(photos, Path(folder)), 1):
            visitor.segment(path, WORDS, registry.DEFAULT)
            path.unlink()
            if number in (1, 10, 25, photos):
                rows.append([str(number), *(f"{status(process.pid, field):.0f}" for field in ("VmRSS", "VmHWM"))])
    return table(["photos of 12 megapixels", "resident, MB", "peak, MB"], rows)


def large_photos(count: int, folder: Path) -> Iterator[Path]:
    """Write different JPEGs of 4000 x 3000 pixels: enlarged gallery photos, each with a tint of its own.

    Args:
        count: number of photos.
        folder: folder that they are written into.

    Returns:
        The path of each photo, written when it is asked for.
    """
    examples = gallery.examples()
    for number in range(count):
        with Image.open(examples[number % len(examples)].path) as opened:
            large = opened.convert("RGB").resize((4000, 3000))
        tint = Image.new("RGB", large.size, tuple(np.random.default_rng(number).integers(0, 255, 3).tolist()))
        path = folder / f"{number}.jpg"
        Image.blend(large, tint, 0.1).save(path, quality=92)
        yield path
