import threading

import numpy as np
import pytest

from ovseg_demo import image, vocabulary
from ovseg_demo.errors import Cancelled, MethodError
from ovseg_demo.methods import registry
from ovseg_demo.methods.ovseg.options import SamOptions
from ovseg_demo.ui import gallery

ALL_PIXELS = SamOptions(unlabelled=0)


def test_real_photos_are_named(engine):
    cases = [
        ("cat_and_parakeet.jpg", "cat, wall, floor, bird, pizza", "cat", (0.10, 0.5)),
        ("pizza.jpg", "pizza, table, horse, bus", "pizza", (0.15, 0.85)),
        ("tram_bus_street.jpg", "bus, road, building, sky, cat", "bus", (0.05, 0.4)),
    ]
    for file, words, expected, (lowest, highest) in cases:
        result = engine.segment(image.load(gallery.FOLDER / file), vocabulary.parse(words), options=ALL_PIXELS)
        found = {c.name: c.share for c in result.summary()}
        assert lowest < found[expected] < highest, (file, found)
        assert sum(found.values()) > 0.99, (file, found)
        assert found.get(words.rpartition(", ")[2], 0) < 0.1, (file, found)


def test_the_second_request_is_answered_from_the_cache(engine):
    photo = image.load(gallery.FOLDER / "pizza.jpg")
    engine.segment(photo, vocabulary.parse("pizza, horse, bus"))
    progress = []
    result = engine.segment(
        photo, vocabulary.parse("pizza, table"), options=SamOptions(granularity=1.0), listener=progress.append
    )
    assert result.timings["Finding masks"] == result.timings["Reading regions"] == 0
    assert {p.stage for p in progress if p.cached} >= {"Finding masks", "Reading regions"}


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (300, 2), (16, 16)])
def test_tiny_and_thin_images_have_a_result(engine, shape, random):
    photo = image.from_array(random.integers(0, 255, (*shape, 3), np.uint8))
    result = engine.segment(photo, vocabulary.parse("cat, dog"))
    assert result.size == shape
    assert result.labels.max() < 2


def test_two_users_at_once_get_their_own_results(engine):
    requests = [("pizza.jpg", "pizza, bus"), ("tram_bus_street.jpg", "tree, bus, road")]
    results = {}

    def segment(file, words):
        results[file] = engine.segment(image.load(gallery.FOLDER / file), vocabulary.parse(words))

    threads = [threading.Thread(target=segment, args=r) for r in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results["pizza.jpg"].names == ("pizza", "bus")
    assert results["pizza.jpg"].size == (461, 640)
    assert results["tram_bus_street.jpg"].names == ("tree", "bus", "road")
    assert results["tram_bus_street.jpg"].size == (427, 640)


def test_a_request_can_be_cancelled_and_the_next_is_served(engine, random):
    photo = image.from_array(random.integers(0, 255, (64, 64, 3), np.uint8))

    def stop(progress):
        if progress.stage == "Finding masks" and progress.fraction > 0:
            raise Cancelled

    with pytest.raises(Cancelled):
        engine.segment(photo, vocabulary.parse("cat, dog"), listener=stop)
    assert engine.segment(photo, vocabulary.parse("cat, dog")).size == (64, 64)


def test_unknown_and_unavailable_methods_are_refused(engine, monkeypatch):
    photo = image.from_array(np.zeros((8, 8, 3), np.uint8))
    with pytest.raises(MethodError, match="Unknown method 'magic'; known: ovseg-sam-mini"):
        engine.segment(photo, vocabulary.parse("cat"), "magic")
    if registry.get("ovseg-sam-vitb16").missing():
        with pytest.raises(MethodError, match=r"needs clip-vit-b16\.safetensors.*--download clip-vit-b16"):
            engine.segment(photo, vocabulary.parse("cat"), "ovseg-sam-vitb16")


def test_notices_reach_the_result(engine):
    photo = image.from_array(np.zeros((8, 8, 3), np.uint8))
    assert engine.segment(photo, vocabulary.parse("cat, Cat, dog")).notes == ("Repeated and counted once: Cat.",)


def test_nothing_here_imports_training_or_evaluation():
    import ast
    from pathlib import Path

    import ovseg_demo

    for path in Path(ovseg_demo.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            modules = (
                [a.name for a in node.names]
                if isinstance(node, ast.Import)
                else [node.module or ""]
                if isinstance(node, ast.ImportFrom)
                else []
            )
            assert not {m.split(".")[0] for m in modules} & {"train", "eval", "app"}, path
