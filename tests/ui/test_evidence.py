import base64
import io
import json

import numpy as np
import pytest
from PIL import Image

from ovseg_demo import image, vocabulary
from ovseg_demo.methods.options import MethodOptions
from ovseg_demo.result import Evidence, RegionMap, Segmentation
from ovseg_demo.ui import evidence
from ovseg_demo.ui.session import Answer, Request

NAMES = ("cat", "<b>dog</b>", "sky")
LABELS = np.array([[2, 2], [2, 0]], np.int32)
COST = np.stack([np.full((2, 4), 0.1), np.linspace(0, 0.5, 8).reshape(2, 4), np.ones((2, 4))]).astype(np.float16)
STEPS = (
    Evidence("Cost map", COST, (0, 1, 2)),
    Evidence("After stage 1", COST[[0, 2]], (0, 2), (0.0, 1.0)),
    Evidence("After stage 2", COST[[2]], (2,), (0.0, 1.0)),
)


def result(*steps: Evidence | RegionMap, labels: np.ndarray = LABELS) -> Segmentation:
    return Segmentation(
        NAMES, labels, (labels >= 0).astype(np.float32), labels[None], labels[None] * 0.0, evidence=steps
    )


def available_maps(*steps: Evidence | RegionMap, labels: np.ndarray = LABELS) -> dict:
    available = evidence.available_maps(result(*steps, labels=labels))
    assert available is not None
    return available


def maps_of(steps, word, size=(100, 50)) -> list[dict]:
    photo = image.from_array(np.zeros((*size, 3), np.uint8))
    answer = Answer(Request(photo, vocabulary.parse("cat"), "sed-mini", MethodOptions()), result(*steps))
    found = evidence.draw_word_maps(answer, 7, word)
    assert (found["id"], found["word"]) == (7, word)
    json.dumps(found, allow_nan=False)
    return found["panels"]


def decoded(url: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1])))).astype(int)


def test_the_maps_of_the_largest_class_are_shown_first():
    available = available_maps(*STEPS)
    assert available["words"] == [[0, "cat"], [1, "<b>dog</b>"], [2, "sky"]]
    assert available["first"] == 2
    assert available_maps(*STEPS)["id"] > available["id"]
    json.dumps(available)


@pytest.mark.parametrize("labels", [np.full((2, 2), -1, np.int32), np.full((2, 2), 2, np.int32)])
def test_a_word_that_was_not_found_has_maps_too(labels):
    assert available_maps(Evidence("Cost map", COST[:1], (1,)), labels=labels)["first"] == 1


def test_a_result_without_evidence_has_no_maps():
    assert evidence.available_maps(result()) is None


def test_every_step_of_a_word_is_drawn_in_its_own_range():
    first, second, third = maps_of(STEPS, 2)
    assert [panel["title"] for panel in (first, second, third)] == ["Cost map", "After stage 1", "After stage 2"]
    assert first["caption"] == "1.000 to 1.000"
    assert third["caption"] == "0 to 1, highest 1.00"
    assert decoded(third["picture"]).shape == (100, 50, 3)
    (ramp, _) = maps_of(STEPS, 1)
    assert ramp["caption"] == "0.000 to 0.500"
    light = decoded(ramp["picture"]).sum(2)
    assert light[-1, -1] > 2 * light[0, 0]


def test_a_rejected_word_says_where_and_only_once():
    assert [panel["caption"] for panel in maps_of(STEPS, 1)] == [
        "0.000 to 0.500",
        "Rejected: nowhere among the best in “Cost map”.",
    ]
    *_, last = maps_of(STEPS, 0)
    assert (last["title"], last["picture"]) == ("After stage 2", None)
    assert "“After stage 1”" in last["caption"]


def test_maps_of_the_image_belong_to_no_word():
    steps = (Evidence("Trusty", COST[:2], None),)
    available = available_maps(*steps)
    assert (available["words"], available["first"]) == ([], None)
    assert [panel["title"] for panel in maps_of(steps, None)] == ["Trusty", "Trusty"]


def test_a_map_of_the_image_stands_among_those_of_any_word():
    trusty = Evidence("Trusty map", COST[1:2], None, (0.0, 1.0))
    steps = (STEPS[1], trusty, STEPS[2])
    assert available_maps(*steps)["words"] == [[0, "cat"], [2, "sky"]]
    panels = maps_of(steps, 2)
    assert [panel["title"] for panel in panels] == ["After stage 1", "Trusty map", "After stage 2"]
    assert panels[1]["caption"] == "0 to 1, highest 0.50"
    assert maps_of(steps, 0)[1] == panels[1]


@pytest.mark.parametrize("word", [None, -1, 99, "cat", [1], {"a": 1}])
def test_a_word_that_nobody_offered_is_no_failure(word):
    (panel,) = maps_of(STEPS, word)
    assert panel["picture"] is None


@pytest.mark.parametrize(("size", "drawn"), [((1000, 500), (320, 160)), ((10, 5), (10, 5)), ((1, 900), (1, 320))])
def test_large_photos_are_drawn_small(size, drawn):
    assert decoded(maps_of(STEPS, 2, size)[0]["picture"]).shape[:2] == drawn


def test_regions_are_drawn_in_the_colours_of_their_list():
    halves = np.repeat(np.array([[0, 2]], np.uint8), 4, 0)
    steps = (RegionMap("Regions", halves, ("cat 0.90", "", "<b>dog</b> 0.50")),)
    available = available_maps(*steps)
    assert (available["words"], available["first"]) == ([], None)
    (panel,) = maps_of(steps, None)
    assert panel["title"] == "Regions"
    assert [caption for _, caption in panel["regions"]] == ["cat 0.90", "<b>dog</b> 0.50"]
    picture = decoded(panel["picture"])  # of a black photo, so that the colours are only darker
    for (colour, _), column in zip(panel["regions"], (10, 40), strict=True):
        listed = np.array([int(part) for part in colour.strip("rgb()").split()])
        assert abs(picture[50, column] - 0.7 * listed).max() < 12


def test_regions_stand_among_the_maps_of_any_word():
    steps = (STEPS[0], RegionMap("Regions", np.zeros((2, 2), np.uint8), ("cat",)))
    assert [panel["title"] for panel in maps_of(steps, 1)] == ["Cost map", "Regions"]
    assert "regions" not in maps_of(steps, 1)[0]
