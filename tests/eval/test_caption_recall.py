"""Recall of photos by captions, on a model that reads the photo's number from its grey value."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from eval import caption_recall

COUNT = 12


class Reader:
    name = "reader"

    def __init__(self, sign: float) -> None:
        self.sign = sign

    def embed_texts(self, words):
        return torch.eye(COUNT)[[int(word.split()[-1]) for word in words]]

    def embed_regions(self, image, proposals, report):
        assert proposals.masks().all()
        return torch.eye(COUNT)[[round(float(np.mean(image)) / 10)]]

    def logits(self, regions, texts):
        return self.sign * regions @ texts.T


@pytest.fixture
def root(tmp_path) -> Path:
    (tmp_path / "images").mkdir()
    for number in range(COUNT):
        Image.new("RGB", (8, 6), (10 * number,) * 3).save(tmp_path / "images" / f"{number}.jpg", quality=100)
    texts = {str(number): [f"photo {number}", f"number {number}"] for number in range(COUNT)}
    (tmp_path / "captions.json").write_text(json.dumps(texts))
    return tmp_path


def test_a_perfect_and_a_hopeless_model(root):
    texts = caption_recall.read_captions(root)
    assert caption_recall.caption_ranks(Reader(1), root, texts).tolist() == [0] * 2 * COUNT
    assert caption_recall.caption_ranks(Reader(-1), root, texts).tolist() == [COUNT - 1] * 2 * COUNT


def test_the_table_is_printed(root, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["caption_recall", "--root", str(root)])
    monkeypatch.setattr(caption_recall.factory, "create_model", lambda name: Reader(-1))
    caption_recall.main()
    assert capsys.readouterr().out.splitlines()[-1] == "| 0.0 | 0.0 | 0.0 |"


@pytest.mark.parametrize(
    ("content", "told"), [(None, "There is no"), ("[1]", "not a list"), ("{", "not a list"), ("{}", "has no caption")]
)
def test_unusable_captions_are_one_line(root, content, told):
    (root / "captions.json").unlink()
    if content is not None:
        (root / "captions.json").write_text(content)
    with pytest.raises(SystemExit, match=told):
        caption_recall.read_captions(root)


def test_a_missing_photo_is_one_line(root, monkeypatch):
    (root / "images" / "3.jpg").unlink()
    monkeypatch.setattr("sys.argv", ["caption_recall", "--root", str(root)])
    monkeypatch.setattr(caption_recall.factory, "create_model", lambda name: Reader(1))
    with pytest.raises(SystemExit, match="There is no file"):
        caption_recall.main()
