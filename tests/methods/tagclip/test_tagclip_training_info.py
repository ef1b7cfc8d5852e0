"""Facts about training that go with the tensors of a file."""

import pytest

from eval import class_names, datasets
from ovseg_demo.errors import CheckpointError
from ovseg_demo.methods.tagclip.training_info import TEMPLATES, TrainingInfo, class_splits, published_training_info
from ovseg_demo.vocabulary import comparison_key, readable_text


def test_writing_and_reading_give_the_same():
    info = TrainingInfo(("cat", "tv|monitor", 'a "quoted" word'), "scenes", seen_penalty=True)
    assert TrainingInfo.from_json(info.to_json(), "file") == info


def test_field_names_of_earlier_versions_are_read():
    text = '{"taught": ["cat", "dog"], "templates": "photo", "handicap": true}'
    assert TrainingInfo.from_json(text, "file") == TrainingInfo(("cat", "dog"), "photo", seen_penalty=True)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"seen_words": 3, "templates": "photo", "seen_penalty": true}',
        '{"seen_words": [], "seen_penalty": 1}',
        '{"taught": [], "handicap": 1}',
    ],
)
def test_an_error_names_the_file_that_is_malformed(text):
    with pytest.raises(CheckpointError, match=r"model\.safetensors does not say how it was trained"):
        TrainingInfo.from_json(text, "model.safetensors")


def test_unknown_prompts_are_refused():
    with pytest.raises(CheckpointError, match="unknown prompts, 'poems'"):
        TrainingInfo.from_json('{"seen_words": [], "templates": "poems", "seen_penalty": false}', "file")


@pytest.mark.parametrize(
    ("name", "benchmark", "wording"),
    [("voc", "voc_15_5", "voc_20.ovseg"), ("coco", "coco_stuff_171", "coco_stuff_171.tagclip")],
)
def test_splits_are_those_of_the_benchmarks(name, benchmark, wording):
    spec, split = datasets.DATASETS[benchmark], class_splits()[name]
    names = class_names.load_class_names(wording).names
    seen = [index for index in range(len(names)) if index not in spec.unseen]
    for classes, rows in ((split.unseen, spec.unseen), (split.seen, seen)):
        assert [comparison_key(each) for each in classes] == [comparison_key(names[row]) for row in rows]


@pytest.mark.parametrize(
    ("benchmark", "setting", "seen_words", "templates", "seen_penalty"),
    [
        ("voc", "inductive", 15, "photo", True),
        ("voc", "transductive", 15, "photo", False),
        ("voc", "supervised", 20, "photo", False),
        ("coco", "inductive", 156, "scenes", True),
        ("coco", "supervised", 171, "scenes", False),
    ],
)
def test_released_models_are_known(benchmark, setting, seen_words, templates, seen_penalty):
    info = published_training_info(benchmark, setting)
    assert len(info.seen_words) == seen_words
    assert (info.templates, info.seen_penalty) == (templates, seen_penalty)


def test_prompts_are_as_many_as_published_and_take_a_word():
    assert {name: len(prompts) for name, prompts in TEMPLATES.items()} == {"photo": 1, "scenes": 15}
    for prompts in TEMPLATES.values():
        assert len({prompt.format(readable_text("cat")) for prompt in prompts}) == len(prompts)
        assert all("cat" in prompt.format("cat") for prompt in prompts)
