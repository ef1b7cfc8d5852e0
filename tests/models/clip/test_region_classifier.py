"""CLIP by open_clip, with random weights: no weight file of it can be had where the tests run."""

import json

import numpy as np
import open_clip
import pytest
import torch

from ovseg_demo.errors import CheckpointError
from ovseg_demo.models.clip.region_classifier import ClipRegionClassifier
from ovseg_demo.models.clip.templates import OVSEG_DEMO_TEMPLATE, VILD_TEMPLATES
from ovseg_demo.models.clip.text import encode_texts
from ovseg_demo.models.clip.weights import build_clip, clip_state_dict
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.vocabulary import readable_text
from ovseg_demo.weights import catalogue
from ovseg_demo.weights.catalogue import Checkpoint
from tests.helpers import tiny_clip
from tests.helpers.paths import FIXTURES

PUBLISHED = json.loads((FIXTURES / "ovseg_clip_adapter.json").read_text())
ARCHITECTURE = "ViT-B-16-quickgelu"


@pytest.fixture(scope="module")
def state():
    torch.manual_seed(0)
    return open_clip.create_model(ARCHITECTURE, pretrained=None).state_dict()


@pytest.fixture(scope="module")
def file(state, tmp_path_factory):
    """A file as OpenAI published them: half precision, three integers beside the tensors."""
    path = tmp_path_factory.mktemp("weights") / "clip.pt"
    extras = {
        "input_resolution": torch.tensor(224),
        "context_length": torch.tensor(77),
        "vocab_size": torch.tensor(49408),
    }
    torch.save({k: v.half() for k, v in state.items()} | extras, path)
    return path


@pytest.fixture
def catalogued(file, monkeypatch):
    monkeypatch.setattr(catalogue, "FOLDER", file.parent)
    entry = Checkpoint("clip-test", "Test", file.name, "MIT", False, ())
    monkeypatch.setattr(catalogue, "entries", lambda: {entry.id: entry})
    return entry


def test_the_names_and_shapes_are_those_of_the_published_files(state):
    """OVSeg's and OpenAI's files share these names; the list was dumped from the reference's modules."""
    published = json.loads((FIXTURES / "clip_vitb16_keys.json").read_text())["tensors"]
    assert {name: list(tensor.shape) for name, tensor in state.items()} == published


def test_wrappers_are_taken_off(state):
    wrapped = {"epoch": 3, "state_dict": {f"module.{k}": v.half() for k, v in state.items()}}
    unwrapped = clip_state_dict(wrapped)
    assert unwrapped.keys() == state.keys()
    assert all(v.dtype == torch.float32 for v in unwrapped.values())
    with pytest.raises(CheckpointError, match="no CLIP weights"):
        clip_state_dict({"model": "hello"})


def test_regions_and_words_meet(catalogued, random):
    vlm = ClipRegionClassifier(ARCHITECTURE, catalogued.id)
    texts = vlm.embed_texts(["cat", "dog", "🐈"])
    assert texts.shape == (3, 512)
    assert torch.allclose(texts.norm(dim=1), torch.ones(3), atol=1e-5)
    assert torch.allclose(texts[0], texts[2], atol=1e-5)

    masks = np.zeros((3, 40, 60), bool)
    masks[0, 5:20, 5:30] = masks[1, 20:, 30:] = masks[2, 3, 4] = True
    image = random.integers(0, 255, (40, 60, 3), np.uint8)
    news = []
    regions = vlm.embed_regions(image, MaskProposals.from_masks(masks, np.ones(3)), news.append)
    assert regions.shape == (3, 512)
    assert news == [1.0]
    logits = vlm.logits(regions, texts)
    assert logits.shape == (3, 3)
    assert torch.allclose(logits, 100 * torch.cosine_similarity(regions[:, None], texts[None], dim=2), atol=1e-3)
    none = MaskProposals.from_masks(masks[:0], np.ones(0))
    assert vlm.embed_regions(image, none, news.append).shape == (0, 512)


def test_a_file_of_another_architecture_is_told(catalogued, state, tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "FOLDER", tmp_path)
    torch.save({k: v for k, v in state.items() if "resblocks.11" not in k}, catalogued.path)
    with pytest.raises(CheckpointError, match=r"24 missing \(transformer.resblocks.11"):
        ClipRegionClassifier(ARCHITECTURE, catalogued.id)


@pytest.fixture
def tiny(tmp_path):
    """A maker of small models from given tensors."""
    tiny_clip.register(tmp_path)

    def make(state: dict, **options) -> ClipRegionClassifier:
        return ClipRegionClassifier(tiny_clip.ARCHITECTURE, "tiny", state=state, **options)

    return make


def test_the_activation_is_the_one_the_weights_were_trained_with(tiny):
    """Taking the exact GELU for QuickGELU raises nothing, but costs accuracy."""
    state = tiny_clip.weights(0)
    quick, exact = (tiny_clip.stock(quick_gelu) for quick_gelu in (True, False))
    tower, crops = tiny(state, precision="float32")._model.visual, torch.randn(2, 3, 224, 224)
    with torch.inference_mode():
        torch.testing.assert_close(tower(crops), quick.encode_image(crops), atol=1e-4, rtol=1e-4)
        assert (tower(crops) - exact.encode_image(crops)).abs().max() > 1e-2


def test_words_are_those_of_the_released_adapter(tiny):
    words = ["cat", "dining table", "the very tall building of a city"]
    texts = tiny(tiny_clip.weights(), templates=VILD_TEMPLATES).embed_texts(words)
    torch.testing.assert_close(texts, torch.tensor(PUBLISHED["texts"]), atol=1e-5, rtol=0)


@pytest.mark.parametrize("word", ["diningtable", "pottedplant", "tvmonitor", "TVMonitor", "🐈 cat"])
def test_words_are_read_verbatim_as_in_the_released_adapter(tiny, word):
    vlm = tiny(tiny_clip.weights(), templates=VILD_TEMPLATES)
    tokens = open_clip.get_tokenizer(tiny_clip.ARCHITECTURE)([template.format(word) for template in VILD_TEMPLATES])
    clip = build_clip(tiny_clip.ARCHITECTURE, tiny_clip.weights(), "tiny").eval()
    with torch.inference_mode():
        prompts = clip.encode_text(tokens, normalize=True)
    expected = torch.nn.functional.normalize(prompts.mean(0), dim=-1)
    torch.testing.assert_close(vlm.embed_texts([word])[0], expected, atol=1e-5, rtol=0)
    assert (vlm.embed_texts([readable_text(word)])[0] - expected).abs().max() > 0.01


def test_a_word_of_emoji_alone_is_read_by_its_name(tiny):
    texts = tiny(tiny_clip.weights()).embed_texts(["🐈", "cat"])
    torch.testing.assert_close(texts[0], texts[1])


def test_a_word_does_not_depend_on_its_company(tiny):
    vlm = tiny(tiny_clip.weights())
    words = ["cat", "the very tall building of a city", *(f"word {i}" for i in range(70))]
    together = vlm.embed_texts(words)
    torch.testing.assert_close(together, torch.cat([vlm.embed_texts([word]) for word in words]), atol=1e-6, rtol=0)


def test_texts_are_cut_exactly(tiny):
    clip = build_clip(tiny_clip.ARCHITECTURE, tiny_clip.weights(0), "tiny")
    tokens = open_clip.get_tokenizer(tiny_clip.ARCHITECTURE)(["cat", "a photo of a dog", "word " * 100])
    assert int(tokens[2, -1]) > 0
    with torch.inference_mode():
        for some in (tokens, tokens[:2]):
            torch.testing.assert_close(encode_texts(clip, some), clip.encode_text(some), atol=1e-5, rtol=0)


def test_templates_part_the_cached_words(tiny):
    names = {
        tiny(tiny_clip.weights(), templates=t).name for t in (OVSEG_DEMO_TEMPLATE, VILD_TEMPLATES, VILD_TEMPLATES[:1])
    }
    assert len(names) == 3
    assert "tiny" in names


@pytest.mark.parametrize(("prompts", "key"), [(tiny_clip.PATCHES, "prompts"), (1, "one_prompt"), (0, "plain")])
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 5e-5), ("bfloat16", 0.02)])
def test_regions_are_those_of_the_released_adapter(tiny, prompts, key, precision, tolerance):
    """With prompts when the weights bring them, without when they do not."""
    vlm = tiny(tiny_clip.weights(prompts), precision=precision)
    proposals = MaskProposals.from_masks(tiny_clip.masks(), np.ones(5))
    regions = vlm.embed_regions(tiny_clip.image(), proposals, lambda _: None)
    torch.testing.assert_close(regions, torch.tensor(PUBLISHED[key]), atol=tolerance, rtol=0)


def test_regions_keep_their_order_over_batches(tiny):
    vlm = tiny(tiny_clip.weights(), precision="float32")
    masks = np.concatenate([tiny_clip.masks()] * 4)[:19]
    news: list[float] = []
    regions = vlm.embed_regions(tiny_clip.image(), MaskProposals.from_masks(masks, np.ones(19)), news.append)
    torch.testing.assert_close(regions, torch.tensor(PUBLISHED["prompts"] * 4)[:19], atol=5e-5, rtol=0)
    assert news == sorted(news)
    assert news[-1] == 1
    one = MaskProposals.from_masks(masks[1:2], np.ones(1))
    torch.testing.assert_close(vlm.embed_regions(tiny_clip.image(), one, lambda _: None), regions[1:2])
    nothing = MaskProposals.from_masks(np.zeros((1, 90, 120), bool), np.ones(1))
    assert vlm.embed_regions(tiny_clip.image(), nothing, lambda _: None).isfinite().all()


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"visual.mask_embedding": torch.zeros(3, 15, 128)}, r"1 misshapen \(visual.mask_embedding\)"),
        ({"visual.mask_embedding": torch.zeros(15, 128)}, r"1 misshapen \(visual.mask_embedding\)"),
        ({"visual.proj": torch.zeros(3, 3)}, r"1 misshapen \(visual.proj\)"),
        ({"visual.attn_pool": torch.zeros(3)}, r"1 unexpected \(visual.attn_pool\)"),
        ({"visual.proj": None}, r"1 missing \(visual.proj\)"),
    ],
)
def test_what_does_not_fit_is_named(tiny, change, told):
    state = {name: value for name, value in (tiny_clip.weights() | change).items() if value is not None}
    with pytest.raises(CheckpointError, match=f"tiny does not fit CLIP: {told}"):
        tiny(state)


@pytest.mark.parametrize("published", [[], {}, {"state_dict": 3}, {"state_dict": {}}, {"epoch": 1}, torch.zeros(2)])
def test_what_holds_no_weights_is_told(published):
    with pytest.raises(CheckpointError, match="no CLIP weights"):
        clip_state_dict(published)


def test_the_clip_of_a_whole_ovseg_model_is_taken_out_of_it():
    clip = tiny_clip.weights()
    whole = {f"clip_adapter.clip_model.{name}": value for name, value in clip.items()}
    whole["backbone.stem.conv1.weight"] = torch.zeros(1)
    found = clip_state_dict({"model": whole})
    assert found.keys() == clip.keys()
    assert all(torch.equal(found[name], clip[name]) for name in clip)


def test_other_templates_share_the_model(tiny):
    single = tiny(tiny_clip.weights())
    vild = single.with_templates(VILD_TEMPLATES)
    assert vild.name == tiny(tiny_clip.weights(), templates=VILD_TEMPLATES).name != single.name
    assert torch.equal(
        vild.embed_texts(["cat"]), tiny(tiny_clip.weights(), templates=VILD_TEMPLATES).embed_texts(["cat"])
    )
    assert not torch.equal(vild.embed_texts(["cat"]), single.embed_texts(["cat"]))
    assert vild._model is single._model


def test_what_training_saves_loads_back(tiny, tmp_path):
    clip = build_clip(tiny_clip.ARCHITECTURE, tiny_clip.weights(0), "tiny")
    clip.visual.initialise_prompts()
    saved = {"state_dict": {f"module.{name}": value for name, value in clip.state_dict().items()}}
    vlm = tiny(saved)
    assert torch.equal(vlm._model.visual.mask_embedding, clip.visual.mask_embedding)
