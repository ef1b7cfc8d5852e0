"""A static page of a run's best, median and worst images: photo, ground truth and prediction side by side."""

import hashlib
import io
from collections.abc import Sequence
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from eval.datasets.base import Dataset, Sample
from eval.journal import Record, write_atomically
from eval.metrics import Confusion
from eval.runner import Predictor
from ovseg_demo import image
from ovseg_demo.render import draw
from ovseg_demo.result import UNLABELLED, Segmentation

PICTURES = "samples"
"""Folder of the pictures, beside the page. Existing pictures are not drawn again."""

_SIDE = 400
_CLASSES_SHOWN = 12
_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 80rem; padding: 0 1rem;
       color-scheme: light dark }
figure { margin: 1rem 0 2rem } figcaption { overflow-wrap: anywhere } img { max-width: 100% }
.chip { display: inline-block; margin: 0 .8rem .2rem 0 }
.chip i { display: inline-block; width: .8em; height: .8em; border: 1px solid #8888; border-radius: 50%;
          margin-right: .3em }
"""


def select_samples(records: Sequence[Record], count: int) -> dict[str, list[Record]]:
    """The best, median and worst images by the mIoU of each image; no image is in two groups, and ties go by key.

    Args:
        records: the finished images.
        count: number of images of a group.

    Returns:
        The images of the groups "Best", "Median" and "Worst".
    """
    scored = [(-r.miou, r.key, r) for r in records if r.miou is not None]
    ranked = [record for _, _, record in sorted(scored, key=lambda entry: entry[:2])]
    best, rest = ranked[:count], ranked[count:]
    worst, middle = rest[::-1][:count], rest[:-count]
    start = max(0, (len(middle) - count) // 2)
    return {"Best": best, "Median": middle[start : start + count], "Worst": worst}


def write_page(folder: Path, title: str, dataset: Dataset, groups: dict[str, list[Record]], predict: Predictor) -> Path:
    """Write samples.html and its pictures; the method runs again for missing pictures.

    Args:
        folder: folder of the run.
        title: title of the page.
        dataset: the benchmark.
        groups: see `select_samples`.
        predict: predicts the labels of a photo.

    Returns:
        The path of the page.

    Raises:
        RunError: when `folder` cannot be written.
        UserError: when a photo or its labels cannot be read.
    """
    samples = {sample.key: sample for sample in dataset}
    for record in (record for group in groups.values() for record in group):
        path = folder / _picture(record)
        if not path.exists():
            write_atomically(path, _draw_pictures(samples[record.key], dataset, predict))
    page = folder / "samples.html"
    write_atomically(page, html(title, dataset, groups).encode("utf-8", "replace"))
    return page


def html(title: str, dataset: Dataset, groups: dict[str, list[Record]]) -> str:
    """The HTML of the page; names of classes and images may hold any characters.

    Args:
        title: title of the page.
        dataset: the benchmark.
        groups: see `select_samples`.
    """
    names = dataset.vocabulary.names
    tints = ["#" + bytes(tint).hex() for tint in draw.colours(names)]
    if dataset.background is not None:
        tints[dataset.background] = "transparent"
    sections = [
        f"<h2>{escape(heading)}</h2>" + "".join(_figure(record, names, tints) for record in group)
        for heading, group in groups.items()
        if group
    ]
    return (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{escape(title)}</title>"
        f"<meta name='viewport' content='width=device-width'><style>{_STYLE}</style><h1>{escape(title)}</h1>"
        f"<p>Photo, ground truth and prediction, from left to right. The score is the image's own mIoU over the "
        f"classes in its ground truth; beside each class stands its IoU.</p>{''.join(sections)}</html>\n"
    )


def _figure(record: Record, names: Sequence[str], tints: Sequence[str]) -> str:
    confusion = Confusion(len(names))
    confusion.add_sparse(record.confusion)
    scores = confusion.scores()
    area = scores.pixels + scores.predicted
    order: list[int] = [c for c in np.argsort(-area, kind="stable").tolist() if area[c]]
    chips = "".join(
        f"<span class='chip'><i style='background:{tints[c]}'></i>{escape(names[c])} {100 * scores.iou[c]:.0f}</span>"
        for c in order[:_CLASSES_SHOWN]
    )
    more = f"and {len(order) - _CLASSES_SHOWN} more" if len(order) > _CLASSES_SHOWN else ""
    key = escape(record.key, quote=True)
    assert record.miou is not None  # `picks` leaves out images without a score
    return (
        f"<figure><figcaption><b>{key}</b> · mIoU {100 * record.miou:.1f}<br>{chips}{more}</figcaption>"
        f"<img loading='lazy' src='{_picture(record)}' alt='Photo, ground truth and prediction of {key}'></figure>"
    )


def _picture(record: Record) -> Path:
    """The path of a picture in the run's folder: a digest, for keys may hold characters that file names cannot."""
    return Path(PICTURES, hashlib.blake2b(record.key.encode("utf-8", "replace"), digest_size=8).hexdigest() + ".jpg")


def _draw_pictures(sample: Sample, dataset: Dataset, predict: Predictor) -> bytes:
    """Photo, ground truth and prediction side by side, as JPEG."""
    photo = image.load(sample.image)
    prediction, _ = predict(photo)
    overlays = [
        draw.overlay(photo.pixels, _drawable(labels, dataset).resized(photo.pixels.shape[:2]))
        for labels in (dataset.load_labels(sample), prediction)
    ]
    pictures = [_small(pixels) for pixels in (photo.pixels, *overlays)]
    buffer = io.BytesIO()
    Image.fromarray(np.concatenate(pictures, axis=1)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def _small(pixels: np.ndarray) -> np.ndarray:
    picture = Image.fromarray(pixels)
    picture.thumbnail((_SIDE, _SIDE))
    return np.asarray(picture)


def _drawable(labels: np.ndarray, dataset: Dataset) -> Segmentation:
    """Labels as a result to draw, in which ignored, unlabelled and background pixels show the photo."""
    visible = np.where(labels == dataset.background, UNLABELLED, labels)
    none = np.empty((0, *labels.shape), np.float32)
    scores = np.zeros(labels.shape, np.float32)
    return Segmentation(dataset.vocabulary.names, visible, scores, none.astype(np.int32), none)
