"""The generated API, as the README shows it."""

import json

import numpy as np
import pytest
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image

from ovseg_demo.ui import gallery


@pytest.fixture(scope="module")
def client(server):
    return Client(server, verbose=False)


def test_a_photo_comes_back_as_three_files(client):
    overlay, labels, content = client.predict(
        handle_file(str(gallery.FOLDER / "pizza.jpg")),
        "pizza, horse, bus",
        "ovseg-sam-mini",
        {"granularity": 0.8},
        api_name="/segment",
    )
    assert Image.open(overlay).size == Image.open(labels).size == (640, 461)
    with open(content) as file:
        found = json.load(file)
    indices = np.array(Image.open(labels))
    assert "pizza" in {c["name"] for c in found["classes"]}
    assert {c["index"] for c in found["classes"]} == set(np.unique(indices)) - {255}


@pytest.mark.parametrize(
    ("words", "method", "options", "message"),
    [
        ("", "ovseg-sam-mini", {}, "at least one word"),
        (None, "ovseg-sam-mini", None, "at least one word"),
        ("cat", "magic", {}, "Unknown method 'magic'"),
        ("cat", "ovseg-sam-mini", {"granularity": 7}, "between 0 and 1"),
        ("cat", "ovseg-sam-mini", {"rejection": 8}, "ovseg-sam-mini has no option 'rejection'"),
        ("cat", "sed-mini", {"rejection": 0.5}, "one whole number of at least 1"),
        ("cat", "ovseg-sam-mini", [0.8], "Options must be one JSON object, for example"),
    ],
)
def test_bad_input_is_one_sentence(client, words, method, options, message):
    with pytest.raises(AppError, match=message):
        client.predict(handle_file(str(gallery.FOLDER / "pizza.jpg")), words, method, options, api_name="/segment")


def test_no_granularity_is_automatic(client):
    photo = handle_file(str(gallery.FOLDER / "pizza.jpg"))
    *_, content = client.predict(
        photo, "pizza, horse, bus", "ovseg-sam-mini", {"granularity": None}, api_name="/segment"
    )
    with open(content) as file:
        found = json.load(file)
    assert 0 <= found["granularity"] <= 1
    assert found["granularity_reason"]


def test_methods_are_listed_with_the_schema_of_their_options(client):
    listed = {entry["id"]: entry for entry in client.predict(api_name="/methods")}
    assert listed["sed-mini"]["available"]
    assert listed["sed-mini"]["options"]["properties"].keys() == {"unlabelled", "rejection"}


def test_only_the_documented_endpoints_are_public(client):
    assert list(client.view_api(return_format="dict")["named_endpoints"]) == ["/segment", "/methods"]
