import io
import json
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from ovseg_demo import image, vocabulary
from ovseg_demo.errors import ImageError
from ovseg_demo.methods.ovseg.options import SamOptions
from ovseg_demo.render import draw, export
from ovseg_demo.result import Choice, Segmentation


def example(random, classes: int, size=(13, 17)) -> Segmentation:
    labels = random.integers(-1, classes, size).astype(np.int32)
    scores = np.where(labels < 0, 0, random.random(size)).astype(np.float32)
    return Segmentation(tuple(f"class {i}" for i in range(classes)), labels, scores, labels[None].clip(0), scores[None])


def words(result: Segmentation) -> vocabulary.Vocabulary:
    return vocabulary.parse(", ".join(result.names))


def test_run_lengths_decode_to_the_label_map(random):
    result = example(random, 4)
    content = json.loads(export.to_json(result, words(result), "some-method", SamOptions()))
    decoded = np.full(result.size, -1)
    for entry in content["classes"]:
        mask = coco.decode(entry["segmentation"]).astype(bool)
        assert mask.sum() == entry["pixels"]
        assert np.isclose(entry["share"], mask.mean(), atol=1e-6)
        decoded[mask] = entry["index"]
        assert content["vocabulary"][entry["index"]]["name"] == entry["name"]
    assert np.array_equal(decoded, result.labels)
    assert (content["height"], content["width"]) == result.size


def test_the_presence_of_each_word_is_told_where_it_is_known(random):
    def told(result: Segmentation) -> dict:
        return json.loads(export.to_json(result, words(result), "some-method", SamOptions(unlabelled=0.2)))

    result = example(random, 3)
    assert [entry["presence"] for entry in told(result)["vocabulary"]] == [None] * 3
    known = replace(result, presence=np.array([0.123456, 1, 0], np.float32))
    assert [entry["presence"] for entry in told(known)["vocabulary"]] == [0.1235, 1, 0]
    assert told(known)["unlabelled"] == 0.2


def test_label_png_is_indexed_with_the_class_colours(random):
    result = example(random, 4)
    picture = Image.open(io.BytesIO(export.label_png(result)))
    assert picture.mode == "P"
    indices = np.array(picture).astype(int)
    assert np.array_equal(np.where(indices == 255, -1, indices), result.labels)
    assert np.array_equal(np.array(picture.convert("RGB")), draw.label_map(result))


@pytest.mark.parametrize(("classes", "depth", "unlabelled"), [(255, 8, 255), (256, 16, 65535), (900, 16, 65535)])
def test_many_classes_need_sixteen_bits(random, classes, depth, unlabelled):
    result = example(random, classes)
    indices = np.array(Image.open(io.BytesIO(export.label_png(result))))
    assert indices.dtype == (np.uint8 if depth == 8 else np.uint16)
    assert np.array_equal(np.where(indices == unlabelled, -1, indices.astype(int)), result.labels)


def test_files_have_the_size_of_the_original(tmp_path, random):
    photo = image.Photo(random.integers(0, 255, (13, 17, 3), np.uint8), (26, 34))
    result = replace(example(random, 3), chosen={"granularity": Choice(0.4, "so")})
    files = export.write_files(
        tmp_path / "new", "photo", photo, result, words(result), "some-method", SamOptions(granularity=None)
    )
    overlay, labels, described = files
    assert [p.name for p in files] == ["photo.overlay.png", "photo.labels.png", "photo.json"]
    assert Image.open(labels).size == (34, 26)
    assert Image.open(overlay).size == (17, 13)
    content = json.loads(described.read_text())
    assert (content["height"], content["width"]) == (26, 34)
    assert (content["granularity"], content["granularity_reason"]) == (0.4, "so")
    assert content["proposals"] == "balanced"


def test_a_folder_that_cannot_be_written_is_told(tmp_path, random):
    (tmp_path / "file").write_text("")
    photo = image.Photo(np.zeros((13, 17, 3), np.uint8), (13, 17))
    result = example(random, 3)
    with pytest.raises(ImageError, match="Cannot write"):
        export.write_files(
            tmp_path / "file", "photo", photo, result, words(result), "some-method", SamOptions(granularity=0.5)
        )


@pytest.mark.parametrize("size", [(13, 17), (26, 34), (40, 18), (13, 99)])
def test_files_of_a_larger_size_say_what_the_resized_result_says(random, size):
    result = example(random, 4)
    resized = result.resized(size)
    told = json.loads(export.to_json(result, words(result), "some-method", SamOptions(), size))
    assert told == json.loads(export.to_json(resized, words(result), "some-method", SamOptions()))
    for entry in told["classes"]:
        assert np.array_equal(coco.decode(entry["segmentation"]), resized.mask(entry["index"]))
    assert export.label_png(result, size) == export.label_png(resized)
