"""The mini model: its text tower against the original, its protocol, and sensible names on real photos."""

import json

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from ovseg_demo.methods.background_words import background_words
from ovseg_demo.methods.known import log_odds
from ovseg_demo.models.mini.anchors import anchor_scores
from ovseg_demo.models.mini.model import PLACES_SHARE, DenseFeatures, MiniModel, mean_under_masks, preprocess
from ovseg_demo.models.mini.towers import ImageTower
from ovseg_demo.models.region_crops import masked_crops
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.weights.loading import load_state_dict
from tests.helpers.paths import FIXTURES, GALLERY


@pytest.fixture(scope="module")
def mini() -> MiniModel:
    return MiniModel()


def photo(name: str) -> np.ndarray:
    return np.array(Image.open(GALLERY / f"{name}.jpg").convert("RGB"))


def whole(image: np.ndarray) -> MaskProposals:
    return MaskProposals.from_masks(np.ones((1, *image.shape[:2]), bool), np.ones(1))


def embedded(mini: MiniModel, image: np.ndarray, proposals: MaskProposals) -> torch.Tensor:
    return mini.embed_regions(image, proposals, lambda share: None)


def noise(*size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def published(**options) -> torch.nn.Module:
    model = timm.create_model("tf_efficientnet_lite2", **options).eval()
    state = {name: value.float() for name, value in load_state_dict("mini-image").items()}
    model.load_state_dict({name: state[name] for name in model.state_dict()})
    return model


def crops(height: int, width: int) -> torch.Tensor:
    return torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize("side", [224, 225])
def test_fused_tower_equals_the_published_one(mini, side):
    tower, pixels = mini._image_tower, crops(side, side)
    with torch.inference_mode():
        torch.testing.assert_close(tower.class_logits(tower.pooled(pixels)), published()(pixels), atol=1e-3, rtol=0)


def test_the_pyramid_equals_the_published_towers(mini):
    pixels = crops(64, 96)
    with torch.inference_mode():
        *fine, coarse = mini._image_tower.pyramid(pixels)
        expected = published(features_only=True, out_indices=(1, 2, 3))(pixels)
        for level, right in zip(fine, expected, strict=True):
            torch.testing.assert_close(level, right, atol=1e-3, rtol=1e-3)
        found = [(level.shape[1], 64 // level.shape[2], 96 // level.shape[3]) for level in (*fine, coarse)]
        assert found == [(c, s, s) for c, s in zip(ImageTower.CHANNELS, ImageTower.STRIDES, strict=True)]
        torch.testing.assert_close(coarse, published().forward_features(pixels), atol=1e-3, rtol=1e-3)
        torch.testing.assert_close(coarse.mean((2, 3)), mini._image_tower.pooled(pixels), atol=1e-5, rtol=1e-4)


def test_texts_match_the_original_weights(mini):
    """The oracle ran in single precision; the bundled weights are stored in half."""
    oracle = json.loads((FIXTURES / "minilm.json").read_text(encoding="utf-8"))
    values = torch.tensor(oracle["values"])
    found = mini.embed_texts(oracle["texts"])
    assert found.shape == (len(values), 384)
    torch.testing.assert_close(found[:, : values.shape[1]], values, atol=2e-3, rtol=0)


def test_rows_depend_only_on_their_own_word(mini):
    words = ["cat", "a very long description of a tall building in the evening light", "sky", ""]
    together = mini.embed_texts(words)
    for row, word in zip(together, words, strict=True):
        torch.testing.assert_close(row, mini.embed_texts([word])[0], atol=1e-5, rtol=0)


def test_texts_are_unit_vectors_in_any_language_and_length(mini):
    texts = mini.embed_texts(["猫", "🐈", "", "word " * 500])
    torch.testing.assert_close(texts.norm(dim=1), torch.ones(4))


def test_no_words_give_no_rows(mini):
    assert mini.embed_texts([]).shape == (0, 384)


def test_no_proposals_give_no_regions(mini):
    image = np.zeros((30, 40, 3), np.uint8)
    regions = embedded(mini, image, MaskProposals.from_masks(np.zeros((0, 30, 40), bool), np.zeros(0)))
    assert len(regions) == 0
    assert mini.logits(regions, mini.embed_texts(["cat", "dog"])).shape == (0, 2)


def test_degenerate_masks_and_images_give_finite_logits(mini):
    image = np.zeros((5, 7, 3), np.uint8)
    masks = np.zeros((3, 5, 7), bool)
    masks[0, 4, 6] = True
    masks[1, :, 3] = True
    logits = mini.logits(embedded(mini, image, MaskProposals.from_masks(masks, np.ones(3))), mini.embed_texts(["cat"]))
    assert logits.shape == (3, 1)
    assert logits.isfinite().all()


def test_regions_do_not_depend_on_their_batch(mini):
    image = photo("pizza")
    masks = np.zeros((18, *image.shape[:2]), bool)
    for index, mask in enumerate(masks):
        mask[10 * index : 10 * index + 200, 15 * index : 15 * index + 250] = True
    together = embedded(mini, image, MaskProposals.from_masks(masks, np.ones(18)))
    alone = embedded(mini, image, MaskProposals.from_masks(masks[17:], np.ones(1)))
    torch.testing.assert_close(together[17:], alone, atol=1e-3, rtol=1e-3)


def test_regions_without_masks_are_those_of_their_crops_alone(mini):
    """The crop of an empty mask is all mean colour."""
    masks = np.zeros((2, 40, 60), bool)
    masks[1, :20] = True
    empty, half = embedded(mini, noise(40, 60), MaskProposals.from_masks(masks, np.ones(2)))
    with torch.inference_mode():
        alone = mini._heads.region_embeddings(mini._image_tower.pooled(torch.zeros(1, 3, 224, 224)))[0]
    torch.testing.assert_close(empty[-384:], alone, atol=1e-3, rtol=1e-3)
    assert half.isfinite().all()


def test_logits_of_a_region_are_those_of_its_crop_and_of_its_places(mini):
    image, words = photo("pizza"), ["pizza", "bus", "a table"]
    mask = np.zeros(image.shape[:2], bool)
    mask[100:300, 200:500] = True
    proposals = MaskProposals.from_masks(mask[None], np.ones(1))
    texts = mini.embed_texts(words)
    [crop] = masked_crops(image, proposals, size=224, mean=(127,) * 3, std=(128,) * 3, batch_size=1, antialias=True)
    with torch.inference_mode():
        features = mini._image_tower.pooled(crop)
        anchors = mini._anchors.logits(mini._anchors.weights(mini._image_tower.class_logits(features)), texts)
        heads = mini._heads.region_embeddings(features) @ texts.T
        means, (area,) = mean_under_masks(mini.embed_pixels(preprocess(image)), proposals)
        places = mini.logits(means, texts)
    logits = mini.logits(embedded(mini, image, proposals), texts)
    assert area == pytest.approx(mask.mean(), abs=1e-6)
    share = PLACES_SHARE * (1 - area**2)
    expected = (1 - share) * (anchors + heads) + share * places
    torch.testing.assert_close(logits, expected, atol=1e-3, rtol=1e-3)
    assert min(part.abs().max() for part in (anchors, heads, places)) > 0.1


def test_the_places_of_a_region_are_weighted_by_what_its_mask_covers():
    """Two of the four columns of places are under the mask, and one more by half."""
    generator = torch.Generator().manual_seed(0)
    anchors, dense = torch.randn(1, 2, 3, generator=generator), torch.randn(8, 16, 5, generator=generator).half()
    masks = np.zeros((3, 32, 64), bool)
    masks[0, :, :10] = True
    masks[1] = True
    found, areas = mean_under_masks(DenseFeatures(anchors, dense, ()), MaskProposals.from_masks(masks, np.ones(3)))
    torch.testing.assert_close(areas, torch.tensor([10 / 64, 1, 0]))
    weights = torch.tensor([1, 1, 0.5] + [0] * 13)
    torch.testing.assert_close(found[0, 3:], (dense.float().mean(0) * weights[:, None]).sum(0) / 2.5)
    torch.testing.assert_close(found[0, :3], anchors[0, 0])
    torch.testing.assert_close(found[1], torch.cat([anchors.mean((0, 1)), dense.float().mean((0, 1))]))
    assert (found[2] == 0).all()


def test_the_whole_photo_is_its_crop_alone(mini):
    image = photo("pizza")
    whole = MaskProposals.from_masks(np.ones((1, *image.shape[:2]), bool), np.ones(1))
    [crop] = masked_crops(image, whole, size=224, mean=(127,) * 3, std=(128,) * 3, batch_size=1, antialias=True)
    with torch.inference_mode():
        expected = mini._heads.region_embeddings(mini._image_tower.pooled(crop))
    torch.testing.assert_close(embedded(mini, image, whole)[:, -384:], expected, atol=1e-3, rtol=1e-3)


def test_a_photo_is_read_at_three_sizes(mini):
    image, texts = photo("pizza"), mini.embed_texts(["pizza", "bus", "sky"])
    read = mini.embed_image(image)
    size = read.dense.shape[:2]
    parts = [
        torch.nn.functional.interpolate(
            torch.einsum("hwd,kd->khw", mini.embed_pixels(preprocess(image, side)).dense.float(), texts)[None],
            size,
            mode="bilinear",
            antialias=True,
        )[0]
        for side in (512, 256, 768)
    ]
    whole = torch.einsum("hwd,kd->khw", read.dense.float(), texts)
    torch.testing.assert_close(whole, torch.stack(parts).mean(0), atol=2e-2, rtol=0)
    assert (whole - parts[0]).abs().max() > 0.3


@pytest.mark.parametrize(
    ("size", "read"),
    [
        ((461, 640), (384, 512)),
        ((333, 217), (512, 320)),
        ((1, 1), (512, 512)),
        ((3, 1000), (32, 512)),
        ((1000, 3), (512, 32)),
        ((31, 33), (480, 512)),
    ],
)
def test_photos_of_every_shape_are_read(mini, size, read):
    assert preprocess(noise(*size)).shape[2:] == read
    features = mini.embed_image(noise(*size))
    assert features.anchors.shape == (read[0] // 32, read[1] // 32, len(mini._anchors))
    assert features.dense.shape == (read[0] // 4, read[1] // 4, 384)
    assert [level.shape for level in features.maps] == [
        (channels, read[0] // stride, read[1] // stride) for channels, stride in ((120, 16), (48, 8), (24, 4))
    ]
    halves = features.dense.numel() + sum(level.numel() for level in features.maps)
    assert features.nbytes == 4 * features.anchors.numel() + 2 * halves
    logits = mini.dense_logits(features, mini.embed_texts(["cat", "sky"]))
    assert logits.shape == (2, read[0] // 4, read[1] // 4)
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()


def test_dense_logits_of_a_word_do_not_depend_on_other_words(mini):
    features, words = mini.embed_image(photo("pizza")), ["pizza", "bus", "sky", "table"]
    together = mini.dense_logits(features, mini.embed_texts(words))
    for index, word in enumerate(words):
        alone = mini.dense_logits(features, mini.embed_texts([word]))
        torch.testing.assert_close(together[index], alone[0], atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(mini.dense_logits(features, mini.embed_texts(words[::-1])).flip(0), together)


def test_dense_logits_are_those_of_the_anchors_and_of_the_dense_head(mini):
    features, texts = mini.embed_image(noise(64, 64)), mini.embed_texts(["cat", "sky"])
    with torch.inference_mode():
        coarse = mini._anchors.logits(features.anchors.flatten(0, 1), texts).view(16, 16, 2).movedim(-1, 0)
        expected = torch.nn.functional.interpolate(coarse[None], (128, 128), mode="bilinear")[0]
        expected = expected + torch.einsum("hwd,kd->khw", features.dense.float(), texts)
    torch.testing.assert_close(mini.dense_logits(features, texts), expected, atol=1e-3, rtol=1e-3)


def test_progress_rises_to_one_and_may_cancel(mini):
    image = photo("pizza")
    proposals = MaskProposals.from_masks(np.ones((20, *image.shape[:2]), bool), np.ones(20))
    shares = []
    mini.embed_regions(image, proposals, shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1

    def stop(share: float) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        mini.embed_regions(image, proposals, stop)


def test_concepts_score_between_mean_and_maximum_of_their_evidence():
    classes = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)) * 7 + 3
    evidence = torch.zeros(2, 1000, dtype=torch.bool)
    evidence[0, 5] = evidence[1, 10:20] = True
    scores = anchor_scores(classes, evidence)
    standard = scores[:, :1000]
    torch.testing.assert_close(standard.std(1), torch.ones(4))
    torch.testing.assert_close(scores[:, 1000], standard[:, 5])
    assert (scores[:, 1001] <= standard[:, 10:20].amax(1)).all()
    assert (scores[:, 1001] >= standard[:, 10:20].mean(1)).all()


def test_a_certain_tower_does_not_overflow():
    classes = torch.zeros(1, 1000)
    classes[0, 7] = 1000
    assert anchor_scores(classes, torch.eye(1000, dtype=torch.bool)).isfinite().all()


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("pizza", "pizza dog sky car bed"),
        ("home_office", "laptop elephant beach pizza tree"),
        ("tram_bus_street", "bus cat sofa sea flower"),
        ("yellow_kitchen", "kitchen horse mountain aeroplane snow"),
        ("mountain_horses", "mountain computer bottle bus bed"),
    ],
)
def test_photos_get_the_right_name_of_five(mini, name, words):
    image = photo(name)
    logits = mini.logits(embedded(mini, image, whole(image)), mini.embed_texts(words.split()))
    assert logits[0].argmax() == 0
    assert logits[0].softmax(0)[0] > 0.5


def test_a_region_is_known_to_show_a_word_only_where_it_does(mini):
    image = photo("pizza")
    regions = embedded(mini, image, whole(image))
    for text, present in [("pizza", True), ("horse", False)]:
        logits = mini.logits(regions, mini.embed_texts([text, *background_words([text])])).T
        assert bool(log_odds(logits[:1], logits[1:], mini.calibration).amax() > 0) is present
