"""Speed and memory, each printed as one Markdown table from one run.

    python -m eval.benchmark interactive   first result, slider and new words, beside segment-anything's generator
    python -m eval.benchmark memory        the serving process after many large photos

Figures are ratios and medians of the machine they ran on; nothing in the tests asserts a time.
"""

import argparse
import multiprocessing
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
from PIL import Image

from eval.visitor import Visitor
from ovseg_demo import fusion, gallery, image, methods, vocabulary
from ovseg_demo.methods.base import PROPOSALS, Options
from ovseg_demo.proposals.base import MaskProposals

STOCK = {"generator 16x16": 16, "generator 32x32": 32}
"""segment-anything's SamAutomaticMaskGenerator with the same MobileSAM weights, by points a side."""

STAGES = ("encode", "propose", "score", "fuse")
MATCH = 0.8
"""IoU from which a mask counts as found again."""

WORDS = "cat, person, tree, car, table"
OTHER_WORDS = ("dog", "bus", "river", "kite", "lamp", "pizza", "shirt", "boat", "cloud", "rabbit", "mirror", "guitar")


@dataclass
class Run:
    """One contender on every photo.

    Attributes:
        seconds: by photo and stage.
        megabytes: peak resident memory by stage, over the photos.
        proposals: by photo.
    """

    seconds: list[dict[str, float]]
    megabytes: dict[str, float]
    proposals: list[MaskProposals]

    def total(self, photo: int) -> float:
        return sum(self.seconds[photo].values())


def contend(name: str, photos: Sequence[Path]) -> Run:
    """Run a setting of ours or of the stock generator, in this process, after one warm-up on a small picture."""
    from ovseg_demo.proposals import mobile_sam
    from ovseg_demo.vlm.mini import MiniVLM

    model, vlm = mobile_sam.load(), MiniVLM()
    parsed = vocabulary.parse(WORDS)
    run = Run([], dict.fromkeys(STAGES, 0.0), [])
    propose, encoding = _proposer(name, model)
    propose(np.zeros((64, 64, 3), np.uint8))
    vlm.embed_texts(parsed.names)
    for path in photos:
        photo, seconds = image.load(path), {}

        def stage(label: str, work: Callable, seconds: dict[str, float] = seconds):
            _reset_peak()
            start = time.perf_counter()
            result = work()
            seconds[label] = time.perf_counter() - start
            run.megabytes[label] = max(run.megabytes[label], _peak())
            return result

        proposals = stage("propose", lambda photo=photo: propose(photo.pixels))
        seconds["encode"] = encoding[-1]
        seconds["propose"] -= encoding[-1]

        def score(photo: image.Photo = photo, proposals: MaskProposals = proposals) -> np.ndarray:
            regions = vlm.embed_regions(photo.pixels, proposals, lambda _: None)
            return vlm.logits(regions, vlm.embed_texts(parsed.names)).softmax(1).numpy()

        scores = stage("score", score)
        stage("fuse", lambda p=proposals, s=scores: fusion.fuse(fusion.cut(p), s, parsed.names, Options.granularity))
        run.seconds.append(seconds)
        run.proposals.append(proposals)
    run.megabytes["encode"] = run.megabytes["propose"]  # one call does both
    return run


def recall(reference: MaskProposals, found: MaskProposals) -> float:
    """The share of the reference's masks that `found` has at an IoU of at least MATCH."""
    wanted, ours = (p.masks().reshape(len(p), -1).astype(np.float32) for p in (reference, found))
    common = wanted @ ours.T
    overlap = common / (wanted.sum(1)[:, None] + ours.sum(1) - common)
    return float((overlap.max(1, initial=0) >= MATCH).mean())


def interactive(photos: Sequence[Path], moves: int, skip: Sequence[str]) -> str:
    """The table of `python -m eval.benchmark interactive`."""
    runs: dict[str, Run] = {}
    for name in (*PROPOSALS, *STOCK):
        if name in skip:
            continue
        print(f"{name} …", file=sys.stderr, flush=True)
        # A process of its own for each: none inherits another's memory or warm caches.
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            runs[name] = pool.apply(contend, (name, photos))
    stock = [name for name in STOCK if name in runs]
    head = ["", *(f"{s}, s / MB" for s in STAGES), "total, s", "masks"]
    head += [f"times faster than {name}" for name in stock] + [f"recall of {name}" for name in stock]
    rows = []
    for name, run in runs.items():
        medians = {stage: statistics.median(s[stage] for s in run.seconds) for stage in STAGES}
        total = statistics.median(run.total(i) for i in range(len(photos)))
        row = [name, *(f"{medians[s]:.2f} / {run.megabytes[s]:.0f}" for s in STAGES), f"{total:.2f}"]
        row.append(str(sum(map(len, run.proposals))))
        row += [f"{statistics.median(runs[s].total(i) / run.total(i) for i in range(len(photos))):.1f}" for s in stock]
        row += [f"{_pooled_recall(runs[s], run):.3f}" for s in stock]
        rows.append(row)
    print("the running server …", file=sys.stderr, flush=True)
    return f"{_table(head, rows)}\n\n{_latencies(photos, moves)}"


def memory(photos: int) -> str:
    """The table of `python -m eval.benchmark memory`."""
    with tempfile.TemporaryDirectory() as folder, _server() as (url, process):
        visitor, rows = Visitor(url), []
        for number, path in enumerate(_large_photos(photos, Path(folder)), 1):
            visitor.segment(path, WORDS, methods.DEFAULT, Options())
            path.unlink()
            if number in (1, 10, 25, photos):
                rows.append(
                    [str(number), f"{_status(process.pid, 'VmRSS'):.0f}", f"{_status(process.pid, 'VmHWM'):.0f}"]
                )
    return _table(["photos of 12 megapixels", "resident, MB", "peak, MB"], rows)


def _proposer(name: str, model) -> tuple[Callable[[np.ndarray], MaskProposals], list[float]]:
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

        model.image_encoder.img_size = 1024
        sam = Sam(model.image_encoder, model.prompt_encoder, model.mask_decoder)
        generator = SamAutomaticMaskGenerator(sam, points_per_side=STOCK[name])
        generator.predictor.set_image = timed(generator.predictor.set_image)

        def generate(pixels: np.ndarray) -> MaskProposals:
            records = generator.generate(pixels)
            masks = np.array([r["segmentation"] for r in records], bool).reshape(-1, *pixels.shape[:2])
            return MaskProposals.from_masks(masks, np.array([r["predicted_iou"] for r in records]))

        return generate, encoding
    from ovseg_demo.proposals.sam import SamProposals

    model.encode = timed(model.encode)
    maker = SamProposals(model, name)
    return lambda pixels: maker.propose(pixels, lambda _: None), encoding


def _pooled_recall(reference: Run, run: Run) -> float:
    """Recall over the masks of all photos together."""
    pairs = list(zip(reference.proposals, run.proposals, strict=True))
    return sum(recall(r, f) * len(r) for r, f in pairs) / sum(len(r) for r, _ in pairs)


def _latencies(photos: Sequence[Path], moves: int) -> str:
    """First result, slider and new word, as a visitor of the running server sees them."""
    first, slider, word = [], [], []
    with _server() as (url, _):
        for path in photos:
            visitor = Visitor(url)
            first.append(visitor.segment(path, WORDS, methods.DEFAULT, Options()))
            slider += [visitor.move_granularity(v) for v in np.linspace(0, 1, moves)]
            for new in OTHER_WORDS:
                # The page's address in the cache is the word, so each photo needs its own to be new.
                word.append(visitor.change_words(f"{WORDS}, {new} {path.stem}", methods.DEFAULT, Options()))
    rows = [
        [label, *(f"{1000 * np.percentile(values, p):.0f}" for p in (50, 95)), str(len(values))]
        for label, values in (("first result", first), ("slider", slider), ("new word", word))
    ]
    return _table(["through the server", "p50, ms", "p95, ms", "times"], rows)


@contextmanager
def _server() -> Iterator[tuple[str, subprocess.Popen]]:
    """The demo in a process of its own, with its model loaded."""
    port = 7890
    root = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PORT": str(port), "HOST": "127.0.0.1"}
    process = subprocess.Popen([sys.executable, "app.py"], cwd=root, env=environment, stdout=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        for _ in range(120):
            if process.poll() is not None:
                raise SystemExit("the demo did not start; run `python app.py` to see why")
            try:
                httpx.get(url).raise_for_status()
                break
            except httpx.HTTPError:
                time.sleep(0.5)
        with tempfile.NamedTemporaryFile(suffix=".png") as file:
            Image.new("RGB", (64, 64)).save(file.name)
            Visitor(url).segment(Path(file.name), WORDS, methods.DEFAULT, Options())  # waits until the model is loaded
        yield url, process
    finally:
        process.terminate()
        process.wait()


def _large_photos(count: int, folder: Path) -> Iterator[Path]:
    """Different 4000 x 3000 JPEGs: gallery photos enlarged, each turned to another tint."""
    examples = gallery.examples()
    for number in range(count):
        with Image.open(examples[number % len(examples)].path) as opened:
            large = opened.convert("RGB").resize((4000, 3000))
        tint = Image.new("RGB", large.size, tuple(np.random.default_rng(number).integers(0, 255, 3).tolist()))
        path = folder / f"{number}.jpg"
        Image.blend(large, tint, 0.1).save(path, quality=92)
        yield path


def _reset_peak() -> None:
    Path("/proc/self/clear_refs").write_text("5")  # Linux: VmHWM starts again from now


def _peak() -> float:
    return _status("self", "VmHWM")


def _status(process: int | str, field: str) -> float:
    """A memory field of /proc/PROCESS/status in megabytes."""
    for line in Path(f"/proc/{process}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) / 1000
    raise KeyError(field)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m eval.benchmark", description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    live = commands.add_parser("interactive", help="first result, slider and new words")
    live.add_argument("--photos", type=int, default=3, help="how many gallery photos (default %(default)s)")
    live.add_argument("--moves", type=int, default=30, help="slider moves a photo (default %(default)s)")
    live.add_argument("--skip", nargs="*", default=[], choices=[*PROPOSALS, *STOCK], help="contenders to leave out")
    large = commands.add_parser("memory", help="the serving process after many large photos")
    large.add_argument("--photos", type=int, default=50, help="default %(default)s")
    chosen = parser.parse_args()
    if chosen.command == "memory":
        print(memory(chosen.photos))
    else:
        print(interactive([e.path for e in gallery.examples()[: chosen.photos]], chosen.moves, chosen.skip))


if __name__ == "__main__":
    main()
