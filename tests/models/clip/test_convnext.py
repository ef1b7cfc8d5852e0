"""A ConvNeXt CLIP read at every place: the same numbers as timm's and open_clip's own modules give."""

import pytest
import torch
from open_clip import get_tokenizer
from torch import nn

from ovseg_demo.errors import CheckpointError
from ovseg_demo.models.clip import convnext, text
from ovseg_demo.models.clip.convnext import (
    HierarchicalClip,
    OptimisedConvNextBlock,
    build_convnext_clip,
    hierarchical_features,
)
from ovseg_demo.models.clip.templates import IMAGENET_TEMPLATES
from ovseg_demo.models.clip.text import embed_words
from tests.helpers import tiny_convnext

WORDS = ["cat", "building-other", "the very tall building of a city"]


@pytest.fixture(autouse=True)
def _apart(tmp_path, monkeypatch):
    tiny_convnext.register(tmp_path)
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "cache"))


@pytest.fixture(params=["linear", "mlp"])
def head(request) -> str:
    return request.param


def make(head: str = "linear", name: str = "tiny 01", **options) -> HierarchicalClip:
    state = tiny_convnext.stock(head).state_dict()
    return HierarchicalClip(tiny_convnext.HEADS[head], state, name, source="tiny", **options)


def images(*size: int) -> torch.Tensor:
    return torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(1))


@torch.inference_mode()
def test_every_place_is_read_as_the_head_reads_a_whole_image(head):
    visual, pixels = tiny_convnext.stock(head).visual, images(64, 96)
    last, stages = visual.trunk.forward_intermediates(pixels)
    found = hierarchical_features(visual, pixels)
    assert found.dense.shape == (2, tiny_convnext.WIDTH, 2, 3)
    for row, column in ((0, 0), (1, 2)):
        alone = visual.head(visual.trunk.head(last[:, :, row : row + 1, column : column + 1]))
        torch.testing.assert_close(found.dense[:, :, row, column], alone, atol=1e-5, rtol=1e-5)
    assert [each.shape[2:] for each in found.skips] == [(4, 6), (8, 12), (16, 24)]
    for skip, stage in zip(found.skips, stages[2::-1], strict=True):
        torch.testing.assert_close(skip, stage)
    assert found.nbytes == 4 * sum(each.numel() for each in (found.dense, *found.skips))


@pytest.mark.parametrize("size", [(64, 64), (64, 96)])
@pytest.mark.parametrize("hidden_bytes", [1, 1000, 2**22])
def test_inference_in_float32_is_the_same_function(head, size, hidden_bytes, monkeypatch):
    monkeypatch.setattr(convnext, "_HIDDEN_BYTES", hidden_bytes)
    clip = make(head, precision="float32")
    with torch.inference_mode():
        expected = hierarchical_features(tiny_convnext.stock(head).visual, images(*size))
    found = clip.embed_images(images(*size))
    assert expected.dense.abs().max() > 0.3
    for ours, theirs in zip((found.dense, *found.skips), (expected.dense, *expected.skips), strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_inference_in_bfloat16_is_nearly_the_same_and_adds_up_in_float32(head):
    exact, near = (
        make(head, precision=precision).embed_images(images(64, 96)) for precision in ("float32", "bfloat16")
    )
    for a, b in zip((near.dense, *near.skips), (exact.dense, *exact.skips), strict=True):
        assert a.dtype == torch.float32
        assert 1e-5 < (a - b).norm() / b.norm() < 0.02


def test_images_of_a_batch_are_read_each_by_itself():
    clip, pixels = make(precision="float32"), images(64, 96)
    together = clip.embed_images(pixels)
    for index in range(2):
        alone = clip.embed_images(pixels[index : index + 1])
        torch.testing.assert_close(alone.dense[0], together.dense[index], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(alone.skips[2][0], together.skips[2][index], atol=1e-5, rtol=1e-4)


def test_gradients_reach_every_weight_of_the_tower(head):
    clip = build_convnext_clip(tiny_convnext.HEADS[head], tiny_convnext.stock(head).state_dict(), "tiny").train()
    hierarchical_features(clip.visual, images(64, 64)).dense.square().sum().backward()
    assert all(value.grad.abs().sum() > 0 for value in clip.visual.parameters())


def test_the_weights_are_in_memory_once():
    visual = build_convnext_clip(
        tiny_convnext.HEADS["linear"], tiny_convnext.stock("linear").state_dict(), "tiny"
    ).visual
    original = visual.trunk.stages[0].blocks[0].mlp.fc1.weight
    convnext.replace_convnext_blocks(visual, "bfloat16")
    blocks = [block for stage in visual.trunk.stages for block in stage.blocks]
    assert all(type(block) is OptimisedConvNextBlock for block in blocks)
    assert all(value is not original for value in visual.parameters())
    assert blocks[0].fc1.linear.weight.dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"visual.head.proj.weight": None}, r"1 missing \(visual.head.proj.weight\)"),
        ({"visual.head.mlp.fc1.weight": torch.zeros(3)}, r"1 unexpected \(visual.head.mlp.fc1.weight\)"),
        ({"text_projection": torch.zeros(2, 2)}, r"1 misshapen \(text_projection\)"),
    ],
)
def test_what_does_not_fit_is_named(change, told):
    state = tiny_convnext.stock("linear").state_dict() | change
    with pytest.raises(CheckpointError, match=f"tiny does not fit CLIP: {told}"):
        build_convnext_clip(tiny_convnext.HEADS["linear"], {k: v for k, v in state.items() if v is not None}, "tiny")


@pytest.mark.parametrize(("architecture", "rate"), [("convnext_base_w_320", 0), ("convnext_large_d_320", 0.1)])
def test_training_drops_what_sed_dropped(architecture, rate, monkeypatch):
    """open_clip's own configurations drop paths in both and nothing in the head."""
    monkeypatch.setattr(convnext, "load_clip_weights", lambda clip, *_: clip)
    visual = build_convnext_clip(architecture, {}, "tiny").visual
    last = visual.trunk.stages[3].blocks[2].drop_path
    assert getattr(last, "drop_prob", 0) == pytest.approx(rate)
    assert next(module.p for module in visual.head.modules() if isinstance(module, nn.Dropout)) == rate


@torch.inference_mode()
def test_words_are_read_verbatim_in_every_template():
    stock = tiny_convnext.stock("linear")
    tokens = get_tokenizer(tiny_convnext.HEADS["linear"])([t.format(w) for w in WORDS for t in IMAGENET_TEMPLATES])
    expected = nn.functional.normalize(stock.encode_text(tokens), dim=1).view(3, 80, -1)
    clip = make()
    assert clip.prompts == len(set(IMAGENET_TEMPLATES)) == 80
    assert IMAGENET_TEMPLATES[0] == "a bad photo of a {}."
    for found in (clip.embed_texts(WORDS), embed_words(stock, WORDS, IMAGENET_TEMPLATES)):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_word_does_not_depend_on_its_company():
    clip = make()
    together = clip.embed_texts([*WORDS, "cat"])
    assert torch.equal(together[0], together[3])
    fresh = make(name="another")
    alone = torch.cat([fresh.embed_texts([word]) for word in WORDS])
    torch.testing.assert_close(alone, together[:3], atol=1e-6, rtol=0)


def test_words_are_read_once_for_all_starts(monkeypatch):
    first = make().embed_texts(WORDS)
    read = []
    monkeypatch.setattr(text, "embed_words", lambda _, words, templates: read.append(words) or torch.zeros(1, 80, 16))
    assert torch.equal(make().embed_texts(WORDS[::-1]), first.flip(0))
    assert read == []
    mixed = make().embed_texts(["dog", "cat"])
    assert read == [["dog"]]
    assert torch.equal(mixed[1], first[0])
    assert not torch.equal(make(name="tiny 02").embed_texts(["cat"])[0], first[0])
    assert read[1:] == [["cat"]]


def test_a_disk_that_takes_nothing_changes_nothing(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    expected = make().embed_texts(WORDS)
    monkeypatch.setenv("OVSEG_CACHE", str(tmp_path / "file"))
    clip = make()
    with pytest.warns(UserWarning, match="cannot be kept"):
        found = clip.embed_texts(WORDS)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=0)
