"""Latency of the first result, the slider and new words, compared with segment-anything's own mask generator."""

import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from eval.benchmark.browser_client import BrowserClient
from eval.benchmark.process import WORDS, alone, peak, reset_peak, server
from eval.markdown import table
from ovseg_demo import image, vocabulary
from ovseg_demo.methods import registry
from ovseg_demo.methods.ovseg import fusion
from ovseg_demo.methods.ovseg.options import SamOptions
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.proposals.cells import cut_cells
from ovseg_demo.proposals.sam.mask_generator import SETTINGS
from ovseg_demo.runtime import memory

STOCK = {"generator 16x16": 16, "generator 32x32": 32}
"""segment-anything's SamAutomaticMaskGenerator with the same MobileSAM weights, by points a side."""

IMPLEMENTATIONS = (*SETTINGS, *STOCK)

STAGES = ("encode", "propose", "score", "fuse")
MATCH = 0.8
"""IoU from which a mask of the stock generator counts as recalled."""

OTHER_WORDS = ("dog", "bus", "river", "kite", "lamp", "pizza", "shirt", "boat", "cloud", "rabbit", "mirror", "guitar")


@dataclass
class InteractiveMeasurement:
    """Time, memory and mask proposals of one implementation on every photo.

    Attributes:
        seconds: for each photo, the seconds of each stage.
        megabytes: for each stage, the peak resident memory over the photos.
        proposals: the mask proposals of each photo.
    """

    seconds: list[dict[str, float]]
    megabytes: dict[str, float]
    proposals: list[MaskProposals]

    def total(self, photo: int) -> float:
        """The seconds of all stages for the photo with this number."""
        return sum(self.seconds[photo].values())


def report(photos: Sequence[Path], moves: int, skip: Sequence[str]) -> str:
    """The tables of `python -m eval.benchmark interactive`.

    Args:
        photos: paths of the photos.
        moves: slider moves a photo.
        skip: names of IMPLEMENTATIONS that are left out.
    """
    runs: dict[str, InteractiveMeasurement] = {}
    for name in IMPLEMENTATIONS:
        if name in skip:
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        runs[name] = alone(run_implementation, name, photos)
    print("the running server …", file=sys.stderr, flush=True)
    return f"{_comparison_table(runs)}\n\n{_latencies(photos, moves)}"


def run_implementation(name: str, photos: Sequence[Path]) -> InteractiveMeasurement:
    """Measure an implementation in this process, after a warm-up on a small picture.

    Args:
        name: a name of IMPLEMENTATIONS.
        photos: paths of the photos.
    """
    from ovseg_demo.models.mini.model import MiniModel

    if name not in STOCK:
        memory.configure_allocator()  # as the demo does, but not for the stock generator, which runs as published
    vlm, small = MiniModel(), np.zeros((64, 64, 3), np.uint8)
    parsed, granularity = vocabulary.parse(WORDS), SamOptions().granularity
    assert granularity is not None  # None is automatic, which is not the default
    run = InteractiveMeasurement([], dict.fromkeys(STAGES, 0.0), [])
    propose, encoding = _proposer(name)
    propose(small)
    vlm.embed_regions(small, MaskProposals.from_masks(np.ones((1, 64, 64), bool), np.ones(1)), lambda _: None)
    vlm.embed_texts(parsed.names)
    for path in photos:
        photo, seconds = image.load(path), {}

        def stage(label: str, work: Callable, seconds: dict[str, float] = seconds):
            reset_peak()
            start = time.perf_counter()
            result = work()
            seconds[label] = time.perf_counter() - start
            run.megabytes[label] = max(run.megabytes[label], peak())
            return result

        proposals = stage("propose", lambda photo=photo: propose(photo.pixels))
        seconds["encode"] = encoding[-1]
        seconds["propose"] -= encoding[-1]

        def score(photo: image.Photo = photo, proposals: MaskProposals = proposals) -> np.ndarray:
            regions = vlm.embed_regions(photo.pixels, proposals, lambda _: None)
            return vlm.logits(regions, vlm.embed_texts(parsed.names)).softmax(1).numpy()

        scores = stage("score", score)
        stage(
            "fuse",
            lambda p=proposals, s=scores: fusion.fuse_masks(cut_cells(p), s, parsed.names, granularity),
        )
        run.seconds.append(seconds)
        run.proposals.append(proposals)
    run.megabytes["encode"] = run.megabytes["propose"]  # one call does both
    return run


def recall(reference: MaskProposals, proposals: MaskProposals) -> float:
    """The share of reference masks that overlap with a proposal with an IoU of at least MATCH.

    Args:
        reference: the reference masks.
        proposals: the proposals, of the same photo.
    """
    wanted, given = (p.masks().reshape(len(p), -1).astype(np.float32) for p in (reference, proposals))
    common = wanted @ given.T
    overlap = common / (wanted.sum(1)[:, None] + given.sum(1) - common)
    return float((overlap.max(1, initial=0) >= MATCH).mean())


def _comparison_table(runs: dict[str, InteractiveMeasurement]) -> str:
    """A row for each implementation: seconds and memory by stage, masks, speed-up and recall of stock generators."""
    stock = [name for name in STOCK if name in runs]
    head = ["", *(f"{s}, s / MB" for s in STAGES), "total, s", "masks"]
    head += [f"times faster than {name}" for name in stock] + [f"recall of {name}" for name in stock]
    rows = []
    for name, run in runs.items():
        photos = range(len(run.seconds))
        medians = {stage: statistics.median(s[stage] for s in run.seconds) for stage in STAGES}
        total = statistics.median(map(run.total, photos))
        row = [name, *(f"{medians[s]:.2f} / {run.megabytes[s]:.0f}" for s in STAGES), f"{total:.2f}"]
        row.append(str(sum(map(len, run.proposals))))
        row += [f"{statistics.median(runs[s].total(i) / run.total(i) for i in photos):.1f}" for s in stock]
        row += [f"{_pooled_recall(runs[s], run):.3f}" for s in stock]
        rows.append(row)
    return table(head, rows)


def _latencies(photos: Sequence[Path], moves: int) -> str:
    """First result, slider and new word, as a visitor of the running server sees them."""
    first, slider, word = [], [], []
    with server() as (url, _):
        for path in photos:
            visitor = BrowserClient(url)
            first.append(visitor.segment(path, WORDS, registry.DEFAULT))
            slider += [visitor.move_granularity(v) for v in np.linspace(0, 1, moves)]
            for new in OTHER_WORDS:
                # Text embeddings are cached by word, so each photo needs words of its own.
                word.append(visitor.change_words(f"{WORDS}, {new} {path.stem}", registry.DEFAULT))
    rows = [
        [label, *(f"{1000 * np.percentile(values, p):.0f}" for p in (50, 95)), str(len(values))]
        for label, values in (("first result", first), ("slider", slider), ("new word", word))
    ]
    return table(["through the server", "p50, ms", "p95, ms", "times"], rows)


def _proposer(name: str) -> tuple[Callable[[np.ndarray], MaskProposals], list[float]]:
    """A function from pixels to proposals, and the list to which each call appends the seconds of its encoder."""
    encoding: list[float] = []

    def timed(encode: Callable) -> Callable:
        def run(*arguments):
            start = time.perf_counter()
            result = encode(*arguments)
            encoding.append(time.perf_counter() - start)
            return result

        return run

    if name in STOCK:
        from segment_anything import SamAutomaticMaskGenerator
        from segment_anything.modeling import Sam

        model = _plain_model()
        encoder: Any = model.image_encoder  # stands in for segment-anything's own
        encoder.img_size = 1024
        sam = Sam(encoder, model.prompt_encoder, model.mask_decoder)
        generator = SamAutomaticMaskGenerator(sam, points_per_side=STOCK[name])
        generator.predictor.set_image = timed(generator.predictor.set_image)

        def generate(pixels: np.ndarray) -> MaskProposals:
            records = generator.generate(pixels)
            masks = np.array([r["segmentation"] for r in records], bool).reshape(-1, *pixels.shape[:2])
            return MaskProposals.from_masks(masks, np.array([r["predicted_iou"] for r in records]))

        return generate, encoding
    from ovseg_demo.proposals.sam import mobile_sam
    from ovseg_demo.proposals.sam.mask_generator import SamMaskGenerator

    model = mobile_sam.load_mobile_sam()
    model.encode = timed(model.encode)
    generator = SamMaskGenerator(model, name)
    return lambda pixels: generator.propose(pixels, lambda _: None), encoding


def _pooled_recall(reference: InteractiveMeasurement, run: InteractiveMeasurement) -> float:
    """Recall over the masks of all photos together."""
    pairs = list(zip(reference.proposals, run.proposals, strict=True))
    return sum(recall(r, f) * len(r) for r, f in pairs) / sum(len(r) for r, _ in pairs)


def _plain_model():
    """MobileSAM as timm and segment-anything run it, without the layers that `mobile_sam.load_mobile_sam` fuses."""
    from ovseg_demo.proposals.sam import mobile_sam
    from ovseg_demo.weights import loading

    model = mobile_sam.MobileSam()
    loading.load_strict(model, mobile_sam.rename_tensors(loading.load_state_dict("mobile-sam")), "mobile-sam")
    return model
