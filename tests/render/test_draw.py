import numpy as np

from ovseg_demo.render import draw
from ovseg_demo.result import Segmentation


def example() -> Segmentation:
    labels = np.array([[0, 0, 1, -1]] * 3, np.int32)
    scores = np.array([[1, 0.5, 0, 0]] * 3, np.float32)
    return Segmentation(("a", "b"), labels, scores, labels[None].clip(0), scores[None])


def test_a_colour_belongs_to_a_name():
    assert np.array_equal(draw.colours(["cat"])[0], draw.colours(["Cat"])[0])
    assert np.array_equal(draw.colours(["cat"])[0], draw.colours(["cat", "dog", "sky"])[0])


def test_colours_of_a_vocabulary_differ():
    names = [f"word {i}" for i in range(32)]
    assert len(np.unique(draw.colours(names), axis=0)) == 32
    few = draw.colours(names[:8]).astype(int)
    nearest = min(np.abs(few[i] - few[j]).sum() for i in range(8) for j in range(i))
    assert nearest > 60
    assert draw.colours([f"word {i}" for i in range(1000)]).shape == (1000, 3)
    assert draw.colours([]).shape == (0, 3)


def test_label_map_uses_the_colours():
    picture, tints = draw.label_map(example()), draw.colours(["a", "b"])
    assert picture[0, 0].tolist() == tints[0].tolist()
    assert picture[0, 2].tolist() == tints[1].tolist()
    assert picture[0, 3].tolist() == list(draw.UNLABELLED_COLOUR)


def test_outlines_lie_between_labels():
    assert draw.outlines(example().labels)[0].tolist() == [False, True, True, False]


def test_overlay_blends_and_leaves_the_rest():
    photo = np.full((3, 4, 3), 100, np.uint8)
    picture = draw.overlay(photo, example())
    expected = 0.55 * draw.colours(["a", "b"])[0] + 0.45 * 100
    assert np.abs(picture[0, 0] - expected).max() <= 1
    assert picture[0, 1].tolist() == list(draw.OUTLINE_COLOUR)
    assert picture[0, 3].tolist() == [100, 100, 100]


def test_a_heat_map_rises_from_dark_to_bright_over_the_photo():
    photo = np.zeros((4, 8, 3), np.uint8)
    picture = draw.heat_map(photo, np.array([[0.2, 0.6]], np.float16), (0.2, 0.6)).astype(int)
    assert picture.shape == photo.shape
    light = picture.sum(2)
    assert (np.diff(light, axis=1) >= 0).all()
    assert light[0, -1] > light[0, 4] > light[0, 0]
    assert np.array_equal(picture[0, 0], picture[3, 0])
    brighter = draw.heat_map(photo + np.uint8(200), np.array([[0.2, 0.6]]), (0.2, 0.6)).astype(int)
    assert (brighter - picture == 60).all()
    beyond = draw.heat_map(photo, np.array([[-5.0, 5.0]]), (0.2, 0.6)).astype(int)
    assert np.array_equal(beyond[0, [0, -1]], picture[0, [0, -1]])


def test_a_heat_map_of_equal_values_is_no_failure():
    photo = np.zeros((2, 3, 3), np.uint8)
    assert len(np.unique(draw.heat_map(photo, np.full((1, 1), 0.3, np.float16), (0.3, 0.3)))) <= 3
