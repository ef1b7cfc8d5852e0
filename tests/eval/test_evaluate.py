import json
import os
import resource
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval import environment, evaluate, journal, run_arguments, runner
from eval.journal import RunError
from eval.metrics import GROUND_TRUTH
from ovseg_demo import image
from ovseg_demo.methods import registry
from ovseg_demo.methods.ovseg.options import SamOptions
from ovseg_demo.methods.sed.options import SEDOptions
from ovseg_demo.ui import gallery
from tests.helpers import evaluation_fakes as fakes
from tests.helpers.paths import ROOT

COUNT = 5


@pytest.fixture
def root(tmp_path) -> Path:
    fakes.draw(tmp_path / "set", COUNT)
    return tmp_path / "set"


@pytest.fixture
def command(monkeypatch, root, tmp_path):
    """`python -m eval.evaluate` on the tiny benchmark; returns the status and all reports by folder."""
    fakes.registered(monkeypatch.setitem, monkeypatch.setattr)
    threads = torch.get_num_threads()

    def run(*arguments) -> tuple[int, dict[str, dict]]:
        out = tmp_path / "out"
        typed = ["--dataset", "tiny", "--root", root, "--method", "reader", "--out", out, *arguments]
        status = evaluate.main(list(map(str, typed)))
        return status, {path.parent.name: json.loads(path.read_text()) for path in out.rglob("report.json")}

    yield run
    torch.set_num_threads(threads)


def run(dataset, folder: Path, engine=None, **sharing) -> runner.Evaluation | None:
    runner.evaluate(engine or fakes.Reader(), dataset, "reader", SamOptions(), folder, **sharing)
    return runner.collect(dataset, folder) if not sharing else None


def same(one: runner.Evaluation, other: runner.Evaluation) -> bool:
    return (
        np.array_equal(one.confusion.counts, other.confusion.counts)
        and np.array_equal(one.boundary.counts, other.boundary.counts)
        and [(r.key, r.miou) for r in one.records] == [(r.key, r.miou) for r in other.records]
        and one.failures == other.failures
    )


def test_words_go_out_and_labels_come_back_in_the_order_of_the_benchmark(root, tmp_path):
    labels = np.array([[0, 1, 2, 3, 2, 255]])
    shown = np.array([[0, 1, -1, 2, 0, 1]])  # of cat, dog, sky; nothing is "rest"
    for path in (root / "images").iterdir():
        path.unlink()
    fakes.store(root, "one", labels, shown)
    with_background = run(fakes.read(root), tmp_path / "a").confusion.counts
    assert with_background.tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 1, 0, 0], [0, 0, 0, 1, 0]]
    without = run(fakes.read(root, background=None), tmp_path / "b").confusion.counts
    assert without.tolist() == [[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 1], [0, 0, 1, 0, 0]]


def test_pixels_given_to_a_rival_are_background(root, tmp_path):
    for path in (root / "images").iterdir():
        path.unlink()
    fakes.store(root, "one", np.array([[0, 2, 2, 3]]), np.array([[3, 4, -1, 2]]))  # cat, dog, sky, tree, road
    dataset = replace(fakes.read(root), rivals=("tree", "road"))
    counts = run(dataset, tmp_path / "out").confusion.counts
    assert counts.tolist() == [[0, 0, 1, 0, 0], [0, 0, 0, 0, 0], [0, 0, 2, 0, 0], [0, 0, 0, 1, 0]]


def test_a_photo_larger_than_models_see_is_compared_at_its_own_size(root, tmp_path):
    labels = np.zeros((600, 2000), np.uint8)
    labels[:, 1000:] = 1
    fakes.store(root, "wide", labels, labels.astype(int))
    dataset = fakes.read(root)
    only = replace(dataset, samples=tuple(s for s in dataset if s.key == "wide"))
    reader = fakes.Reader()
    found = run(only, tmp_path / "out", reader)
    assert reader.shown[0].pixels.shape == (307, 1024, 3)
    assert found.confusion.counts.sum() == 600 * 2000
    assert found.confusion.scores().pixel_accuracy > 0.99


def test_a_finished_run_is_not_repeated_and_loads_no_model(root, tmp_path):
    dataset, first, again = fakes.read(root), fakes.Reader(), fakes.Reader()
    before, after = run(dataset, tmp_path / "out", first), run(dataset, tmp_path / "out", again)
    assert (len(first.shown), first.loaded) == (COUNT, 1)
    assert (len(again.shown), again.loaded) == (0, 0)
    assert same(before, after)


def test_an_interrupted_run_goes_on_where_it_stopped(root, tmp_path, monkeypatch):
    dataset, reader = fakes.read(root), fakes.Reader()
    segment = reader.segment

    def interrupted(*arguments):
        if len(reader.shown) == 3:
            raise KeyboardInterrupt
        return segment(*arguments)

    monkeypatch.setattr(reader, "segment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run(dataset, tmp_path / "out", reader)
    with pytest.raises(RunError, match="2 of 5 images have no record"):
        runner.collect(dataset, tmp_path / "out")
    rest = fakes.Reader()
    resumed = run(dataset, tmp_path / "out", rest)
    assert len(rest.shown) == COUNT - 3
    assert same(resumed, run(dataset, tmp_path / "whole"))


@pytest.mark.parametrize("left", [0, 1, 100, -2, -1])
def test_a_torn_last_record_is_evaluated_again(root, tmp_path, left):
    dataset, folder = fakes.read(root), tmp_path / "out"
    before = run(dataset, folder)
    path = folder / "journal-0.jsonl"
    *whole, last = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(whole) + last[:left])
    reader = fakes.Reader()
    assert same(before, run(dataset, folder, reader))
    assert len(reader.shown) == 1
    assert len(path.read_bytes().splitlines()) == COUNT


def test_shares_of_any_number_of_processes_add_up_to_the_same(root, tmp_path):
    dataset = fakes.read(root)
    whole = run(dataset, tmp_path / "one")
    for process in range(3):
        run(dataset, tmp_path / "three", process=process, processes=3)
    assert len(list((tmp_path / "three").glob("journal-*.jsonl"))) == 3
    assert same(whole, runner.collect(dataset, tmp_path / "three"))
    run(dataset, tmp_path / "both", process=1, processes=2)
    reader = fakes.Reader()
    assert same(whole, run(dataset, tmp_path / "both", reader))
    assert len(reader.shown) == 3, "what the second process had finished stays finished"


def test_broken_files_are_told_counted_and_tried_again(root, tmp_path, capsys):
    whole = run(fakes.read(root), tmp_path / "whole")
    photo, mask, resized = root / "images/photo 0.png", root / "masks/photo 1.png", root / "masks/photo 2.png"
    kept = {path: path.read_bytes() for path in (photo, mask, resized)}
    photo.write_bytes(kept[photo][:60])
    mask.unlink()
    Image.new("L", (3, 4)).save(resized)
    dataset = fakes.read(root)
    found = run(dataset, tmp_path / "out")
    assert [r.key for r in found.records] == ["photo 3", "photo 4"]
    assert [f.path for f in found.failures] == list(map(str, (photo, mask, resized)))
    assert [f.error for f in found.failures][1:] == [
        f"{mask} is missing.",
        f"{resized} has 3 x 4 pixels, but {root / 'images/photo 2.png'} has 17 x 12.",
    ]
    told = capsys.readouterr().err
    assert all(str(path) in told for path in kept)
    for path, content in kept.items():
        path.write_bytes(content)
    assert same(whole, run(dataset, tmp_path / "out"))


def test_a_full_disk_is_one_line_and_loses_nothing(root, tmp_path):
    dataset, folder, reader = fakes.read(root), tmp_path / "out", fakes.Reader()
    whole = run(dataset, tmp_path / "whole")
    room = sum(map(len, (tmp_path / "whole/journal-0.jsonl").read_bytes().splitlines(keepends=True)[:3])) + 50
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))
    try:
        with pytest.raises(RunError, match=r"Cannot write into .*Finished images are kept"):
            run(dataset, folder, reader)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert len(journal.read(folder, journal.Record)[0]) == 3
    rest = fakes.Reader()
    assert same(whole, run(dataset, folder, rest))
    assert len(rest.shown) == COUNT - 3


def test_an_image_is_loaded_while_the_one_before_is_segmented(root, tmp_path, monkeypatch):
    reader, loads = fakes.Reader(), threading.Semaphore(0)
    load, segment = image.load, reader.segment

    def counted(path, longest):
        loads.release()
        return load(path, longest)

    def waiting(*arguments):
        for _ in range([2, 1, 1, 1, 0][len(reader.shown)]):
            assert loads.acquire(timeout=20), "the next photo waits until this one is done"
        return segment(*arguments)

    monkeypatch.setattr(image, "load", counted)
    monkeypatch.setattr(reader, "segment", waiting)
    assert len(run(fakes.read(root), tmp_path / "out", reader).records) == COUNT


def test_the_progress_bar_starts_at_what_is_finished_and_shows_the_miou_of_all(root, tmp_path, monkeypatch):
    bars = []

    class Bar(runner.tqdm):
        def __init__(self, **arguments):
            super().__init__(**arguments)
            self.arguments, self.notes = arguments, []
            bars.append(self)

        def set_postfix_str(self, text, refresh):
            self.notes.append(text)

    monkeypatch.setattr(runner, "tqdm", Bar)
    dataset = fakes.read(root)
    run(replace(dataset, samples=dataset.samples[:2]), tmp_path / "out")
    found = run(dataset, tmp_path / "out")
    assert [(bar.arguments["initial"], bar.arguments["total"], len(bar.notes)) for bar in bars] == [
        (0, 2, 2),
        (2, 5, 3),
    ]
    assert bars[1].notes[-1] == f"mIoU {100 * found.confusion.scores().means[GROUND_TRUTH].miou:.2f}"


def test_the_command_reports(command, tmp_path, capsys):
    status, reports = command("--method", "reader", "other-reader")
    assert status == 0
    assert len(reports) == 2
    printed = capsys.readouterr().out
    assert printed.count("reader |") == 2
    assert (tmp_path / "out/tiny/comparison.md").read_text() == printed
    for name, report in reports.items():
        assert report["images"] == COUNT
        assert report["settings"]["options"] == {
            "unlabelled": SamOptions().unlabelled,
            "granularity": 0.8,
            "proposals": "balanced",
        }
        assert report["settings"]["vocabulary"] == "ours"
        assert report["command"].startswith("python -m eval.evaluate --dataset tiny")
        assert (tmp_path / "out/tiny" / name / "samples.html").exists()
        assert "| sky |" in (tmp_path / "out/tiny" / name / "report.md").read_text()


def test_runs_with_other_settings_are_other_runs_and_a_limit_is_not_a_setting(command):
    assert len(command("--limit", 2)[1]) == 1
    ((_, report),) = command()[1].items()
    assert report["images"] == COUNT
    assert len(command("--granularity", 0.5)[1]) == 2
    assert len(command("--threads", 2)[1]) == 3


def test_automatic_granularity_is_a_setting_and_is_told(command, tmp_path):
    ((name, report),) = command("--granularity", "auto")[1].items()
    assert report["settings"]["options"]["granularity"] is None
    assert "| options, granularity | auto |" in (tmp_path / "out/tiny" / name / "report.md").read_text()


def test_seds_options_are_settings_and_are_told(command, tmp_path, monkeypatch):
    able = replace(registry.get("reader"), options=SEDOptions)
    monkeypatch.setitem(registry.REGISTRY, "reader", able)
    ((name, report),) = command("--rejection", 8, "--keep-aspect")[1].items()
    assert report["settings"]["options"]["rejection"] == [8, 8, 8]
    assert report["settings"]["options"]["keep_aspect"] is True
    assert "| options, rejection | 8, 8, 8 |" in (tmp_path / "out/tiny" / name / "report.md").read_text()
    assert len(command("--rejection", "8,8,4", "--keep-aspect")[1]) == 2


def test_a_limit_takes_the_first_images(command):
    (report,) = command("--limit", 2)[1].values()
    assert (report["images"], report["dataset"]["images"]) == (2, 2)


def test_two_parts_make_the_whole(command, monkeypatch):
    monkeypatch.setattr(run_arguments, "held_out", lambda key: key in ("photo 1", "photo 3"))
    for part in ("held-out", "rest"):
        command("--part", part)
    parts = {report["settings"]["part"]: report["images"] for report in command()[1].values()}
    assert parts == {"held-out": 2, "rest": COUNT - 2, None: COUNT}


def test_a_part_without_images_is_one_line(command, monkeypatch, capsys):
    monkeypatch.setattr(run_arguments, "held_out", lambda _: False)
    assert command("--part", "held-out")[0] == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_broken_files_show_in_the_status_and_the_report(command, root):
    (root / "masks/photo 1.png").unlink()
    status, (report,) = (part if isinstance(part, int) else part.values() for part in command())
    assert status == 1
    assert [f["path"] for f in report["failures"]] == [str(root / "masks/photo 1.png")]


def test_accelerate_that_starts_one_process_instead_of_several_is_told(command, monkeypatch, capsys):
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    assert command()[0] == 0
    assert "accelerate launch --cpu starts one process only" in capsys.readouterr().err


def test_source_that_decides_counts_is_part_of_the_settings():
    for place in environment._CODE:
        assert (ROOT / place).exists(), place


def test_bad_arguments_are_one_line(command, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, told in [
        (["--granularity", 7], "error: Granularity must lie between 0 and 1"),
        (["--granularity", 7], "error: Granularity must lie between 0 and 1"),
        (["--ensemble", 0.5], "error: reader has no option 'ensemble'"),
        (["--granularity", "published"], "error: Granularity must be a number between 0 and 1, or auto"),
        (["--ensemble", "sweep"], "error: reader has no option 'ensemble'"),
        (["--device", "nonsense"], "error: The device 'nonsense' cannot be used here"),
        (["--device", "cuda:99"], "error: The device 'cuda:99' cannot be used here"),
        (["--out", tmp_path / "file"], "error: Cannot write into"),
    ]:
        assert command(*arguments)[0] == 1
        assert capsys.readouterr().err.splitlines()[-1].startswith(told)
    with pytest.raises(SystemExit) as status:
        command("--limit", 0)
    assert status.value.code == 2


def test_two_launched_processes_give_the_metrics_of_one(command, root, tmp_path):
    (alone,) = command()[1].values()
    out = tmp_path / "launched"
    launcher = [sys.executable, "-m", "accelerate.commands.launch", "--multi_gpu", "--num_processes", "2"]
    launcher += ["--num_machines", "1", "--mixed_precision", "no", "--dynamo_backend", "no", "--main_process_port", "0"]
    typed = ["--dataset", "tiny", "--root", root, "--method", "reader", "--out", out]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    subprocess.run([*launcher, fakes.__file__, *map(str, typed)], env=environment, check=True, timeout=300)
    (report,) = (json.loads(path.read_text()) for path in out.rglob("report.json"))
    journals = sorted(out.rglob("journal-*.jsonl"))
    assert [len(path.read_bytes().splitlines()) for path in journals] == [3, 2], "both processes took part"
    assert report["environment"]["processes"] == 2
    assert report["scores"] == alone["scores"]
    assert report["classes"] == alone["classes"]


def test_the_bundled_method_is_evaluated_end_to_end(tmp_path, monkeypatch, engine, capsys):
    monkeypatch.setattr(evaluate, "Engine", lambda device: engine)
    root, names = tmp_path / "set", ["pizza", "horse", "table"]
    for part in ("images", "masks"):
        (root / part).mkdir(parents=True)
    (root / "classes.json").write_text(json.dumps(names))
    for number, file in enumerate(("pizza.jpg", "mountain_horses.jpg")):
        with Image.open(gallery.FOLDER / file) as opened:
            photo = opened.resize((160, 120))
        photo.save(root / "images" / f"{number}.jpg")
        labels = np.full((120, 160), 255, np.uint8)
        labels[50:80, 60:100] = number  # the middle shows the pizza, or a horse
        Image.fromarray(labels).save(root / "masks" / f"{number}.png")
    threads = torch.get_num_threads()
    typed = ["--dataset", "folder", "--root", root, "--proposals", "fast", "--out", tmp_path / "out"]
    status = evaluate.main([*map(str, typed), "--threads", str(threads)])
    assert status == 0, capsys.readouterr().err
    (report,) = (json.loads(path.read_text()) for path in tmp_path.rglob("report.json"))
    assert report["images"] == 2
    assert [c["pixels"] for c in report["classes"]] == [1200, 1200, 0]
    assert report["classes"][0]["accuracy"] > 0.5
    assert report["seconds"]["Finding masks"]["total"] > 0


def test_published_methods_are_measured_on_photos_that_are_not_bounded_as_for_the_page(tmp_path):
    fakes.draw(tmp_path, 1, (20, 1300))
    for longest_side, width in ((2560, 1300), (1024, 1024)):
        reader, folder = fakes.Reader(), tmp_path / f"run {longest_side}"
        runner.evaluate(reader, fakes.read(tmp_path), "reader", SamOptions(), folder, longest_side=longest_side)
        assert {photo.pixels.shape[1] for photo in reader.shown} == {width}
    published = [spec.id for spec in registry.REGISTRY.values() if spec.longest_side == 2560]
    assert "ovseg-maskformer-swinb" in published
    assert "sed-convnext-b" in published
    assert "zegclip-coco" in published
    assert "sed-mini" not in published
