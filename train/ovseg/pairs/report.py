"""Reports on mined pairs: counts as Markdown and JSON, and a page with samples."""

import base64
import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from eval.markdown import table
from ovseg_demo.render import draw
from train.common.run_folder import RunFolder, TrainingError
from train.ovseg.pairs.shards import Pair, PairShards

_COUNTS = "report.json"
_FREQUENT = 30
_SIDE = 200
_DIMMED = 0.25
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem;
       color-scheme: light dark }
table { border-collapse: collapse } td, th { border: 1px solid #8888; padding: .2rem .6rem; text-align: left }
section { border-top: 1px solid #8888; margin-top: 1rem; padding-top: .5rem }
section div { display: flex; flex-wrap: wrap; gap: .8rem }
figure { margin: 0; max-width: 200px } figcaption { overflow-wrap: anywhere } small { opacity: .75 }
"""


def summary(shards: PairShards, photos: int) -> dict[str, Any]:
    """The counts of a run.

    Args:
        shards: all pairs of the run.
        photos: number of photos of the run, with pairs or without.
    """
    words = Counter(shards.metadata(index)["word"] for index in range(len(shards)))
    return {
        "photos": photos,
        "photos_with_pairs": len(np.unique(shards.photos)),
        "pairs": len(shards),
        "words": len(words),
        "pairs_per_photo": round(len(shards) / photos, 2),
        "most_frequent": words.most_common(_FREQUENT),
    }


def write_report(folder: RunFolder, counts: Mapping[str, Any], page: str) -> None:
    """Write report.md, samples.html and, last, report.json, which marks the run as finished.

    Args:
        folder: folder of the run.
        counts: see `summary`.
        page: see `html`.

    Raises:
        TrainingError: when a file cannot be written.
    """
    files = {
        "report.md": markdown(counts),
        "samples.html": page,
        _COUNTS: json.dumps(counts, indent=1, ensure_ascii=False) + "\n",
    }
    for name, text in files.items():
        folder.replace(name, lambda file, text=text: file.write(text.encode("utf-8", "replace")))


def finished_pairs(folder: Path) -> tuple[PairShards, str]:
    """The pairs of a finished run, and a digest of the pairs.

    Args:
        folder: folder of the run.

    Raises:
        TrainingError: when the run is not finished, or shards are missing or damaged.
    """
    try:
        content = (folder / _COUNTS).read_bytes()
        counted = json.loads(content)["pairs"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise TrainingError(
            f"{folder} holds no finished pairs; python -m train.ovseg.pairs makes them, or goes on where it stopped."
        ) from error
    shards = PairShards(folder)
    if len(shards) != counted:
        raise TrainingError(
            f"{folder} holds {len(shards)} pairs, but should hold {counted}; the command that made them makes what is "
            "missing."
        )
    return shards, hashlib.sha256(content + shards.places.tobytes()).hexdigest()


def markdown(counts: Mapping[str, Any]) -> str:
    """The counts, see `summary`, as two Markdown tables."""
    rows = [(name.replace("_", " "), str(value)) for name, value in counts.items() if name != "most_frequent"]
    words = [(word, str(count)) for word, count in counts["most_frequent"]]
    return f"{table(('', ''), rows)}\n\n{table(('most frequent', 'pairs'), words)}\n"


def html(counts: Mapping[str, Any], samples: Iterable[tuple[np.ndarray, Sequence[Pair]]]) -> str:
    """A self-contained HTML page; words, captions and names may hold any characters.

    Args:
        counts: see `summary`.
        samples: photos, uint8 (H, W, 3), RGB, with their pairs.
    """
    rows = "".join(
        f"<tr><th>{escape(name.replace('_', ' '))}<td>{escape(str(value))}"
        for name, value in counts.items()
        if name != "most_frequent"
    )
    words = ", ".join(f"{escape(word)} {count}" for word, count in counts["most_frequent"])
    sections = "".join(_section(pixels, pairs) for pixels, pairs in samples)
    return (
        "<!doctype html><html lang='en'><meta charset='utf-8'><title>Mask-word pairs</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style><h1>Mask-word pairs</h1>"
        f"<table>{rows}</table><p>Most frequent: {words}.</p>{sections}</html>\n"
    )


def sample_photos(
    shards: PairShards, count: int, load: Callable[[int], np.ndarray]
) -> Iterable[tuple[np.ndarray, list[Pair]]]:
    """Photos with all their pairs, evenly spread over the photos that have pairs.

    Args:
        shards: the pairs.
        count: the largest number of photos.
        load: reads a photo, uint8 (H, W, 3), by its number.
    """
    photos = np.unique(shards.photos)
    for photo in photos[np.linspace(0, len(photos) - 1, min(count, len(photos))).astype(int)]:
        yield load(int(photo)), [shards[int(index)] for index in np.flatnonzero(shards.photos == photo)]


def _section(pixels: np.ndarray, pairs: Sequence[Pair]) -> str:
    captions = "<br>".join(dict.fromkeys(escape(pair.caption) for pair in pairs))
    figures = "".join(
        _figure(_spotlight(pixels, pair), f"<b>{escape(pair.word)}</b> <small>{pair.score:.2f}</small>")
        for pair in pairs
    )
    return f"<section><p>{captions}</p><div>{_figure(pixels, escape(pairs[0].photo))}{figures}</div></section>"


def _figure(pixels: np.ndarray, caption: str) -> str:
    picture, file = Image.fromarray(pixels), io.BytesIO()
    picture.thumbnail((_SIDE, _SIDE))
    picture.save(file, "JPEG", quality=80)
    data = base64.b64encode(file.getvalue()).decode()
    return f"<figure><img src='data:image/jpeg;base64,{data}' alt=''><figcaption>{caption}</figcaption></figure>"


def _spotlight(pixels: np.ndarray, pair: Pair) -> np.ndarray:
    """The photo, dark outside the mask, with the mask's outline."""
    x0, y0, x1, y1 = pair.box
    mask = np.zeros(pixels.shape[:2], bool)
    mask[y0:y1, x0:x1] = pair.mask
    picture = np.where(mask[..., None], pixels, pixels * _DIMMED).astype(np.uint8)
    picture[draw.outlines(mask)] = draw.OUTLINE_COLOUR
    return picture
