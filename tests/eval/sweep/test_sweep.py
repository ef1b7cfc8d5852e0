"""A sweep counts at each value what a run with this value counts, and reads each photo once."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from eval import evaluate, runner
from eval.metrics import GROUND_TRUTH
from eval.protocol import Sweep
from eval.sweep import measurement
from eval.sweep.measurement import SweepRecord
from ovseg_demo.methods import registry
from ovseg_demo.methods.ovseg.options import SamOptions
from ovseg_demo.result import UNLABELLED
from tests.helpers import evaluation_fakes as fakes

COUNT = 4
SWEEP = Sweep("granularity", (0.0, 0.25, 0.75, 1.0), 0.75, SamOptions())


class Shutter(fakes.Reader):
    """Leaves the left part of a photo unlabelled, as much of it as the granularity says."""

    def segment(self, photo, vocabulary, _, options):
        found = super().segment(photo, vocabulary)
        width = found.labels.shape[1]
        closed = np.arange(width) < options.granularity * width
        return replace(found, labels=np.where(closed, UNLABELLED, found.labels))


@pytest.fixture
def root(tmp_path):
    fakes.draw(tmp_path / "set", COUNT)
    return tmp_path / "set"


@pytest.fixture
def command(monkeypatch, root, tmp_path):
    """`python -m eval.evaluate` on the tiny benchmark, for which 0.43 was published; the status and the reports."""
    fakes.registered(monkeypatch.setitem, monkeypatch.setattr)
    evaluate.datasets.DATASETS["tiny"].published["granularity"] = 0.43
    for name in ("reader", "other-reader"):
        monkeypatch.setitem(
            registry.REGISTRY, name, replace(registry.REGISTRY[name], build=lambda _: ForEngine(Shutter()))
        )
    threads = torch.get_num_threads()

    def run(*arguments):
        out = tmp_path / "out"
        typed = ["--dataset", "tiny", "--root", root, "--method", "reader", "--out", out, *arguments]
        status = evaluate.main(list(map(str, typed)))
        return status, {path.parent: json.loads(path.read_text()) for path in out.rglob("report.json")}

    yield run
    torch.set_num_threads(threads)


class ForEngine:
    """As much of a method as the engine asks for, in place of an engine's."""

    def __init__(self, reader):
        self._reader = reader

    def segment(self, photo, vocabulary, options, _):
        return self._reader.segment(photo, vocabulary, "", options)


def swept(dataset, folder, engine=None, **sharing):
    measurement.measure(engine or Shutter(), dataset, "reader", SWEEP, folder, **sharing)
    return runner.collect_records(dataset, folder, SweepRecord)


def counts(records) -> list[list]:
    return [record.confusions for record in records]


@pytest.mark.parametrize("background", [fakes.REST, None])
def test_each_value_has_the_scores_of_a_run_with_this_value(root, tmp_path, background):
    dataset = fakes.read(root, background)
    records, failures = swept(dataset, tmp_path / "sweep")
    assert failures == ()
    found = measurement.scores(records, dataset, SWEEP.values)
    for each in found:
        folder = tmp_path / str(each.value)
        runner.evaluate(Shutter(), dataset, "reader", SWEEP.at(each.value), folder)
        alone = runner.collect(dataset, folder).confusion.scores()
        assert each.miou == {rule: means.miou for rule, means in alone.means.items()}
        assert each.pixel_accuracy == alone.pixel_accuracy
        others = [iou for label, iou in enumerate(alone.iou) if label != background]
        assert each.foreground == pytest.approx(np.mean(others))
        np.testing.assert_equal(each.background, np.nan if background is None else alone.iou[background])
    assert len({each.pixel_accuracy for each in found}) == len(SWEEP.values)


def test_the_values_of_a_photo_are_asked_for_in_turn(root, tmp_path):
    """So that the engine's cache need not hold more than one photo."""
    engine = Shutter()
    swept(fakes.read(root), tmp_path / "sweep", engine)
    shown = [photo.key for photo in engine.shown]
    assert [shown[i] for i in range(0, len(shown), 4)] == list(dict.fromkeys(shown))
    assert len(shown) == 4 * COUNT


def test_an_interrupted_sweep_goes_on_where_it_stopped(root, tmp_path, monkeypatch):
    dataset, engine = fakes.read(root), Shutter()
    segment = engine.segment

    def interrupted(*arguments):
        if len(engine.shown) == 2 * len(SWEEP.values) + 1:
            raise KeyboardInterrupt
        return segment(*arguments)

    monkeypatch.setattr(engine, "segment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        swept(dataset, tmp_path / "sweep", engine)
    rest, done = Shutter(), Shutter()
    records, _ = swept(dataset, tmp_path / "sweep", rest)
    assert len(rest.shown) == (COUNT - 2) * len(SWEEP.values)
    assert counts(records) == counts(swept(dataset, tmp_path / "whole")[0])
    swept(dataset, tmp_path / "sweep", done)
    assert (done.shown, done.loaded) == ([], 0)


def test_shares_of_two_processes_add_up(root, tmp_path):
    dataset = fakes.read(root)
    measurement.measure(Shutter(), dataset, "reader", SWEEP, tmp_path / "two", process=0, processes=2)
    measurement.measure(Shutter(), dataset, "reader", SWEEP, tmp_path / "two", process=1, processes=2)
    shared, _ = runner.collect_records(dataset, tmp_path / "two", SweepRecord)
    assert counts(shared) == counts(swept(dataset, tmp_path / "one")[0])


def test_a_broken_photo_is_a_failure_and_is_tried_again(root, tmp_path):
    photo = root / "images/photo 1.png"
    kept = photo.read_bytes()
    photo.write_bytes(kept[:60])
    dataset = fakes.read(root)
    records, failures = swept(dataset, tmp_path / "sweep")
    assert (len(records), [failure.path for failure in failures]) == (COUNT - 1, [str(photo)])
    photo.write_bytes(kept)
    assert len(swept(dataset, tmp_path / "sweep")[0]) == COUNT


def test_the_command_writes_a_table_and_a_plot(command, capsys):
    status, reports = command("--granularity", "sweep")
    assert status == 0
    ((folder, report),) = reports.items()
    values = [each["value"] for each in report["scores"]]
    assert values == sorted({round(0.05 * step, 2) for step in range(21)} | {0.43})
    assert report["published"] == 0.43
    best = max(report["scores"], key=lambda each: each["miou"][GROUND_TRUTH])
    assert report["best"] == best["value"]
    assert report["images"] == COUNT
    assert report["settings"]["options"] == {
        "unlabelled": SamOptions().unlabelled,
        "granularity": values,
        "proposals": "balanced",
    }
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    text = (folder / "report.md").read_text()
    assert f"| {best['value']:g} | best | {100 * best['miou'][GROUND_TRUTH]:.2f} |" in text
    assert "| 0.43 | published | " in text
    assert "| 0.43 | published | " in capsys.readouterr().out


def test_a_sweep_is_a_run_of_its_own_and_a_limit_is_none(command):
    assert len(command("--granularity", "sweep", "--limit", 2)[1]) == 1
    ((_, report),) = command("--granularity", "sweep")[1].items()
    assert report["images"] == COUNT
    assert len(command("--granularity", "published")[1]) == 2


def test_several_methods_are_swept_into_one_file(command, tmp_path, capsys):
    assert len(command("--granularity", "sweep", "--method", "reader", "other-reader")[1]) == 2
    printed = capsys.readouterr().out
    assert (tmp_path / "out/tiny/sweep.md").read_text() == printed
    assert [line for line in printed.splitlines() if line.startswith("# ")] == [
        "# granularity of reader on tiny",
        "# granularity of other-reader on tiny",
    ]


def test_a_sweep_without_any_photo_that_can_be_read_has_a_report(command, root):
    for photo in (root / "images").iterdir():
        photo.write_bytes(b"")
    status, reports = command("--granularity", "sweep")
    ((_, report),) = reports.items()
    assert (status, report["best"], len(report["failures"])) == (1, None, COUNT)
