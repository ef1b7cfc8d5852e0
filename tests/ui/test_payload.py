import base64
import io
import json
from dataclasses import replace

import numpy as np
from PIL import Image

from ovseg_demo import image
from ovseg_demo.result import Segmentation
from ovseg_demo.ui.payload import payload


def decoded(url: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(url.split(",", 1)[1]))).convert("RGB")).astype(int)


def example(random, classes: int) -> Segmentation:
    size = (7, 9)
    labels = random.integers(-1, classes, size).astype(np.int32)
    scores = np.where(labels < 0, 0, random.random(size)).astype(np.float32)
    top = random.integers(0, classes, (3, *size)).astype(np.int32)
    return Segmentation(
        tuple(map(str, range(classes))), labels, scores, top, random.random((3, *size)).astype(np.float32)
    )


def test_the_planes_hold_labels_and_best_scores(random):
    result = example(random, 700)
    sent = payload(result, None, "key")
    planes = decoded(sent["planes"]).reshape(4, 7, 9, 3)
    indices, scores = planes[..., 0] + 256 * planes[..., 1], planes[..., 2] / 255
    assert np.array_equal(indices[0] - 1, result.labels)
    assert np.allclose(scores[0], result.scores, atol=1 / 255)
    assert np.array_equal(indices[1:], result.top_classes)
    assert np.allclose(scores[1:], result.top_scores, atol=1 / 255)
    assert (sent["width"], sent["height"], sent["depth"]) == (9, 7, 3)


def test_the_photo_travels_once(random):
    result = example(random, 3)
    photo = image.Photo(np.full((7, 9, 3), 77, np.uint8), (7, 9))
    assert np.allclose(decoded(payload(result, photo, photo.key)["photo"]), 77, atol=2)
    again = payload(result, None, "key")
    assert again["photo"] is None
    assert again["id"] != payload(result, None, "key")["id"]


def test_the_presence_of_each_class_is_sent_where_the_method_tells_it(random):
    result = example(random, 3)
    assert payload(result, None, "key")["presence"] is None
    told = replace(result, presence=np.array([0.123456, 1, 0], np.float32))
    assert json.loads(json.dumps(payload(told, None, "key")))["presence"] == [0.1235, 1, 0]


def test_the_legend_is_the_summary(random):
    result = example(random, 3)
    sent = payload(result, None, "key")
    assert [e["index"] for e in sent["legend"]] == [c.index for c in result.summary()]
    assert len(sent["colours"]) == len(sent["names"]) == 3
    assert len(sent["heat"]) == 256
