"""The benchmark's own arithmetic and short runs; times are never asserted."""

import json
import os
import signal
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from eval.benchmark import interactive, memory, methods, process, random_weights
from eval.benchmark.__main__ import main
from eval.benchmark.browser_client import BrowserClient
from eval.benchmark.methods import Curve, Point
from eval.benchmark.process import BenchmarkError, alone
from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.ovseg.options import SamOptions
from ovseg_demo.methods.registry import REGISTRY
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.ui import gallery
from ovseg_demo.weights import catalogue, loading
from ovseg_demo.weights.catalogue import Checkpoint
from tests.helpers.work_alone import FoundAlone, look_around

PIZZA = next(e.path for e in gallery.examples() if e.file == "pizza.jpg")

ABOUT = {
    "photos": ["a.jpg", "b.jpg", "c.jpg"],
    "options": {"quick": {"granularity": 0.8, "proposals": "fast"}, "slow": {}},
    "threads": 2,
    "environment": {"processor": "a processor", "accelerator": None},
}
SLOW = Curve(
    "slow",
    ["slow.pth"],
    [
        Point(10, [3.0, 1.0, 2.0], [{"Looking": 2.5}, {"Looking": 0.5}, {"Looking": 1.9}], 0.25, 1000.4),
        Point(847, [9.0, 7.0, 8.0], [{"Looking": 8.5}, {"Looking": 6.5}, {"Looking": 7.9}], 4.0, 2000.0),
    ],
)
QUICK = Curve("quick", [], [Point(10, [0.5] * 3, [{"Looking": 0.5}] * 3, 0.1, 500.0)])


def masks(*rows: str) -> MaskProposals:
    return MaskProposals.from_masks(np.array([[[c == "1" for c in row]] for row in rows]), np.ones(len(rows)))


def test_recall_is_the_share_found_again():
    reference = masks("1111100000", "0000011111", "1010101010")
    assert interactive.recall(reference, reference) == 1
    assert interactive.recall(reference, masks("1111000000")) == pytest.approx(1 / 3)  # IoU 0.8
    assert interactive.recall(reference, masks("1110000000")) == 0  # IoU 0.6
    assert interactive.recall(reference, masks("0000000000")) == 0


@pytest.mark.parametrize("name", ["fast", "generator 16x16"])
def test_a_contender_is_measured_stage_by_stage(name, monkeypatch):
    monkeypatch.setitem(interactive.STOCK, "generator 16x16", 3)
    run = interactive.run_implementation(name, [PIZZA])
    assert set(run.seconds[0]) == set(run.megabytes) == set(interactive.STAGES)
    assert all(seconds > 0 for seconds in run.seconds[0].values())
    assert all(megabytes > 100 for megabytes in run.megabytes.values())
    assert run.proposals[0].size == (461, 640)
    assert len(run.proposals[0]) > 3


def test_contenders_are_compared_photo_by_photo():
    def run(*seconds: float) -> interactive.InteractiveMeasurement:
        by_stage = [dict.fromkeys(interactive.STAGES, s / 4) for s in seconds]
        return interactive.InteractiveMeasurement(
            by_stage, dict.fromkeys(interactive.STAGES, 100.0), [masks("10")] * len(seconds)
        )

    lines = interactive._comparison_table({"fast": run(1, 1), "generator 16x16": run(2, 4)}).splitlines()
    assert "generator 32x32" not in lines[0]
    assert lines[2].startswith("| fast | 0.25 / 100 |")
    assert lines[2].endswith("| 1.00 | 2 | 3.0 | 1.000 |")


def test_large_photos_are_large_and_different(tmp_path):
    first, second = memory.large_photos(2, tmp_path)
    assert Image.open(first).size == (4000, 3000)
    assert first.read_bytes() != second.read_bytes()


def test_a_visitor_sees_what_a_browser_would(server):
    visitor = BrowserClient(server)
    with pytest.raises(RuntimeError, match="no photo"):
        visitor.move_granularity(0.5)
    assert visitor.segment(PIZZA, "pizza, horse, bus", "ovseg-sam-mini") > 0
    assert visitor.move_granularity(0.4) > 0
    assert visitor.change_words("pizza, kite", "ovseg-sam-mini") > 0
    with pytest.raises(RuntimeError, match="the server answered"):
        visitor.change_words(" ", "ovseg-sam-mini")


def test_a_demo_that_does_not_start_is_told(monkeypatch):
    monkeypatch.setattr(process, "_ROOT", Path("/"))
    with pytest.raises(BenchmarkError, match="did not start"), process.server():
        pass


@pytest.fixture(scope="module")
def found_alone() -> FoundAlone:
    """What work found in a process of its own."""
    return alone(look_around, environment={"OVSEG_CHECKPOINTS": "/elsewhere"})


def test_the_peak_starts_again(found_alone):
    before, during, after = found_alone.peaks  # in this process other tests' threads allocate too
    assert during > before + 150
    assert after < before + 100


def test_work_runs_alone(found_alone):
    assert found_alone.process != os.getpid()
    assert found_alone.checkpoints == "/elsewhere"  # as the modules saw it when they were imported
    assert os.environ["OVSEG_CHECKPOINTS"] != "/elsewhere"


def test_what_work_raises_comes_back():
    with pytest.raises(CheckpointError, match="Unknown checkpoint 'nothing'") as caught:
        alone(catalogue.get, "nothing")
    assert "catalogue.py" in caught.value.__notes__[0]


def test_a_killed_process_does_not_hang():
    with pytest.raises(BenchmarkError, match="exit status -9"):
        alone(signal.raise_signal, signal.SIGKILL)


def test_vocabularies_are_the_first_classes():
    assert len(methods.NAMES) == methods.CLASSES[-1] == 847
    words = methods.prefix(20)
    assert words.names == methods.NAMES[:20]
    assert [i for i, _ in words.words()] == list(range(20))


def test_the_table_has_medians_and_says_what_is_random():
    text = methods.markdown([QUICK, SLOW], {"lost": "no file"}, ABOUT)
    lines = text.splitlines()
    assert lines[0] == "Medians over 3 photos, proposals 'fast', on a processor, 2 threads."
    assert lines[4] == "| quick | real | 10 | 0.50 | 0.10 | 500 | Looking 0.50, the rest 0.00 |"
    assert lines[5] == "| slow | random weights | 10 | 2.00 | 0.25 | 1000 | Looking 1.90, the rest 0.50 |"
    assert lines[6].startswith("| slow | random weights | 847 | 8.00 | 4.00 | 2000 |")
    assert lines[8] == "- lost is left out: no file"


def test_the_figure_shows_every_point_and_says_what_is_random():
    drawn = methods.figure([QUICK, SLOW], ABOUT)
    for axes, values in zip(drawn.axes, ([2.0, 8.0], [0.25, 4.0], [1000.4, 2000.0]), strict=True):
        quick, slow = axes.get_lines()
        assert list(slow.get_xdata()) == [10, 847]
        assert list(slow.get_ydata()) == values
        assert (quick.get_linestyle(), slow.get_linestyle()) == ("-", "--")
        assert [tick.get_text() for tick in axes.get_xticklabels()] == ["10", "847"]
    assert [text.get_text() for text in drawn.legends[0].get_texts()] == ["quick", "slow (random weights)"]


def test_the_files_hold_the_measurements(tmp_path):
    methods.write(tmp_path, "text", [SLOW], {"lost": "no file"}, ABOUT)
    content = json.loads((tmp_path / "methods.json").read_text())
    assert content["methods"][0]["random"] == ["slow.pth"]
    assert content["methods"][0]["points"][0]["seconds"] == [3.0, 1.0, 2.0]
    assert content["skipped"] == {"lost": "no file"}
    with Image.open(tmp_path / "methods.png") as plot:
        assert min(plot.size) > 500


def test_words_are_told_from_images_by_what_is_not_repeated(monkeypatch):
    """An engine whose cache knows words and photos, and charges a second for each that is new."""
    monkeypatch.setattr(methods, "peak", lambda: 1.0)

    class Fake:
        cache = None

        def segment(self, photo, words, *_):
            known = self.__dict__.setdefault(id(self.cache), set())
            new = {"Reading words": words.names, "Looking": photo.key}
            timings = {stage: float(key not in known) for stage, key in new.items()}
            known.update(new.values())
            return SimpleNamespace(timings={**timings, "Fusing": 0.5})

    pictures = [methods.image.from_array(np.full((16, 16, 3), grey, np.uint8)) for grey in (0, 9)]
    engine = Fake()
    for count in (2, 3):
        point = methods._point(engine, pictures, methods.prefix(count), "fake", SamOptions())
        assert (point.classes, point.words) == (count, 1.0)
        assert point.stages == [{"Looking": 1.0, "Fusing": 0.5}] * 2


@pytest.fixture
def lacking(monkeypatch, tmp_path):
    """A method with one weight file here, one that ships, and one that is missing."""
    here = tmp_path / "here"
    here.mkdir()
    (here / "own.pth").write_bytes(b"own")
    files = [
        Checkpoint("own", "Own", "own.pth", "MIT", False, ()),
        Checkpoint("absent", "Absent", "absent.safetensors", "MIT", False, ()),
        catalogue.get("mini-anchors"),
    ]
    monkeypatch.setattr(catalogue, "FOLDER", here)
    monkeypatch.setattr(catalogue, "entries", lambda: {entry.id: entry for entry in files})
    monkeypatch.setattr(random_weights, "BUILDERS", {"absent": lambda: {"weight": torch.rand(3)}})
    monkeypatch.setattr(random_weights.tempfile, "tempdir", str(tmp_path))
    entry = replace(REGISTRY["ovseg-sam-mini"], checkpoints=tuple(entry.id for entry in files))
    return SimpleNamespace(entry=entry, files=files, left=lambda: [p.name for p in tmp_path.iterdir()])


def test_missing_weights_are_random_and_loaded_as_usual(lacking, monkeypatch):
    with random_weights.completed(lacking.entry) as folder:
        assert sorted(path.name for path in folder.iterdir()) == ["absent.safetensors", "own.pth"]
        assert (folder / "own.pth").read_bytes() == b"own"
        monkeypatch.setattr(catalogue, "FOLDER", folder)
        assert not lacking.entry.missing()
        assert loading.load_state_dict("absent")["weight"].shape == (3,)
    assert lacking.left() == ["here"]


def test_what_random_weights_read_is_kept_apart(lacking, monkeypatch):
    monkeypatch.setenv("OVSEG_CACHE", "/a/persons/own")
    monkeypatch.setattr(methods, "alone", lambda *_, environment: environment)
    apart = methods.curve(lacking.entry, (1,), (), SamOptions(), "cpu").points
    assert Path(apart["OVSEG_CACHE"]).parent == Path(apart["OVSEG_CHECKPOINTS"])


@pytest.mark.parametrize("interruption", [KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("while_writing", [True, False])
def test_random_weights_do_not_outlive_an_interruption(lacking, monkeypatch, interruption, while_writing):
    def interrupt():
        raise interruption

    if while_writing:
        monkeypatch.setattr(random_weights, "BUILDERS", {"absent": interrupt})

    def use():
        with random_weights.completed(lacking.entry):
            assert not while_writing
            assert len(lacking.left()) == 2
            interrupt()

    with pytest.raises(interruption):
        use()
    assert lacking.left() == ["here"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"sha256": "00"}, "hash or size"),
        ({"size": 3}, "hash or size"),
        ({"md5_prefix": "abcdef"}, "hash or size"),
        ({"id": "newer"}, "architecture"),
        ({"bundled": True}, "ships"),
    ],
)
def test_what_cannot_be_replaced_is_told(lacking, change, why):
    lacking.files[1] = replace(lacking.files[1], **change)
    entry = replace(lacking.entry, checkpoints=tuple(each.id for each in lacking.files))
    with (
        pytest.raises(CheckpointError, match=f"absent.safetensors is not here.*{why}"),
        random_weights.completed(entry),
    ):
        pass
    assert lacking.left() == ["here"]


def test_every_weight_file_to_be_had_elsewhere_can_be_replaced():
    free = {c.id for c in catalogue.entries().values() if not c.bundled and not c.published}
    assert free == set(random_weights.BUILDERS)


def test_a_terminated_run_leaves_nothing_behind(lacking, monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(REGISTRY, "ovseg-sam-mini", lacking.entry)
    monkeypatch.setattr(methods, "alone", lambda *_, **__: signal.raise_signal(signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as ended:
        main(["methods", "--methods", "ovseg-sam-mini", "--out", str(tmp_path / "out")])
    assert ended.value.code == 143
    assert sorted(lacking.left()) == ["here", "out"]
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_method_that_cannot_be_measured_is_left_out(lacking, monkeypatch, tmp_path, capsys):
    ready = replace(lacking.entry, id="ready", checkpoints=("own",))
    lacking.files[1] = replace(lacking.files[1], size=3)
    monkeypatch.setattr(methods, "alone", lambda *_, **__: QUICK.points)
    out, options = tmp_path / "out", {"ready": SamOptions(), "ovseg-sam-mini": SamOptions()}
    text = methods.report([ready, lacking.entry], [10], [PIZZA], options, out)
    assert "| ready | real | 10 |" in text
    assert "- ovseg-sam-mini is left out: absent.safetensors is not here" in text
    assert (out / "methods.md").read_text() == f"{text}\n"
    with pytest.raises(BenchmarkError, match="No method could be measured"):
        methods.report([lacking.entry], [10], [PIZZA], options, out)


def test_the_mini_model_is_measured_by_the_command(monkeypatch, tmp_path, capsys):
    Image.open(PIZZA).resize((64, 48)).save(tmp_path / "tiny.png")
    monkeypatch.setattr(gallery, "examples", lambda: [SimpleNamespace(path=tmp_path / "tiny.png")])
    out = tmp_path / "out"
    typed = ["--methods", "mini-dense", "--classes", "20", "2", "20", "--photos", "1"]
    assert main(["methods", *typed, "--out", str(out)]) == 0
    content = json.loads((out / "methods.json").read_text())
    assert capsys.readouterr().out == (out / "methods.md").read_text()
    (measured,) = content["methods"]
    assert measured["random"] == []
    assert [point["classes"] for point in measured["points"]] == [2, 20]
    for point in measured["points"]:
        (seconds,), (stages,) = point["seconds"], point["stages"]
        assert set(stages) == {"Reading the photo", "Naming pixels"}
        assert min(point["words"], *stages.values()) > 0
        assert sum(stages.values()) <= seconds
        assert point["megabytes"] > 300


@pytest.mark.parametrize("typed", [["--classes", "848"], ["--classes", "0"], ["--photos", "0"], ["--methods", "none"]])
def test_unusable_arguments_are_refused(typed, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["methods", *typed])
    assert ended.value.code == 2


@pytest.mark.parametrize("typed", [["interactive", "--moves", "0"], ["memory", "--photos", "0"]])
def test_nothing_to_measure_is_refused(typed, capsys):
    with pytest.raises(SystemExit) as ended:
        main(typed)
    assert ended.value.code == 2
