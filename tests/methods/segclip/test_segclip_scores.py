"""From a photo to classes of pixels, as SegCLIP's reference does it on equal weights."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.methods.segclip.cells import centre_areas, centre_map, cut_cells, window_regions
from ovseg_demo.methods.segclip.encoder import PhotoRegions, SegCLIPEncoder
from ovseg_demo.methods.segclip.evidence import formed_regions
from ovseg_demo.methods.segclip.scores import name_cells, name_patches, region_scores
from ovseg_demo.methods.windows import WindowLayout
from ovseg_demo.result import Segmentation
from tests.helpers import segclip_models
from tests.helpers.oracle import drawn, drawn_image, fixture, sampled
from tests.helpers.segclip_models import PATCH, SIDE, classes

REFERENCE = fixture("segclip.json")
SIZE = (53, 81)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory) -> SegCLIPEncoder:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OVSEG_CACHE", str(tmp_path_factory.mktemp("cache")))
        segclip_models.register(tmp_path_factory.mktemp("architecture"))
        return SegCLIPEncoder(
            segclip_models.published(),
            "tiny",
            source="tiny",
            precision="float32",
            architecture=segclip_models.ARCHITECTURE,
        )


@pytest.fixture(scope="module")
def read(encoder):
    """The regions of the photo in windows that are so many pixels apart."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("ovseg_demo.methods.windows.WINDOW", SIDE)
        found = {
            stride: encoder.read_windows(drawn_image(), WindowLayout.of(SIZE, SIDE, stride, PATCH), lambda _: None)
            for stride in (48, 24)
        }
    return found.__getitem__


def drawn_regions(layout: WindowLayout, width: int = 6) -> PhotoRegions:
    """Regions of numbers that depend on the layout alone."""
    regions, windows = (
        F.normalize(drawn(name, shape), dim=-1)
        for name, shape in (("regions", (layout.count, 8, width)), ("windows", (layout.count, width)))
    )
    soft = (3 * drawn("soft", (layout.count, 8, *layout.grid))).softmax(1)
    return PhotoRegions(regions, windows, soft, layout)


def dense_scores(of_regions: torch.Tensor, regions: PhotoRegions, size: tuple[int, int]) -> torch.Tensor:
    """Scores (C, H, W) of scores (N, R, C), window by window, at every pixel."""
    total, count = torch.zeros(of_regions.shape[2], *regions.layout.size), torch.zeros(regions.layout.size)
    for area, soft, scores in zip(regions.layout.areas(), regions.soft, of_regions, strict=True):
        total[(slice(None), *area)] += scores[window_regions(soft, count[area].shape)].permute(2, 0, 1)
        count[area] += 1
    return F.interpolate((total / count)[None], size, mode="bilinear", align_corners=False)[0]


def check(found: Segmentation, scores: torch.Tensor, background: torch.Tensor) -> None:
    """Compare a result with the scores (C, H, W) of all classes, and with background scores (H, W)."""
    ours = torch.zeros_like(scores).scatter_(
        0, torch.from_numpy(found.top_classes).long(), torch.from_numpy(found.top_scores)
    )
    best = scores.topk(len(found.top_scores), 0)
    torch.testing.assert_close(torch.from_numpy(found.top_scores), best.values, atol=1e-5, rtol=0)
    kept = ours > 0
    torch.testing.assert_close(ours[kept], scores[kept], atol=1e-5, rtol=0)
    expected = torch.where(best.values[0] >= background, best.indices[0], -1)
    sure = (best.values[0] - background).abs() > 1e-4
    if len(scores) > 1:
        sure &= best.values[0] - best.values[1] > 1e-4
    assert sure.float().mean() > 0.9
    assert torch.equal(torch.from_numpy(found.labels).long()[sure], expected[sure])
    assert np.array_equal(found.scores, np.where(found.labels >= 0, found.top_scores[0], 0))


def test_words_are_read_in_the_published_prompt(encoder):
    found = encoder.embed_texts(REFERENCE["words"])
    torch.testing.assert_close(sampled(found), torch.tensor(REFERENCE["texts"]), atol=1e-5, rtol=0)
    assert encoder.scale == 100  # its learned factor is 110


@pytest.mark.parametrize(
    "case", REFERENCE["inference"], ids=lambda case: f"{case['words']}-{case['stride']}-{case['background']}"
)
def test_a_photo_is_named_as_by_the_reference(encoder, read, case):
    """In windows that do or do not overlap, with more and with fewer classes than the image prior leaves."""
    names, regions = tuple(REFERENCE["words"][: case["words"]]), read(case["stride"])
    scores = region_scores(regions, classes(case["words"]), encoder.scale, image_prior=True)
    found = name_cells(scores, cut_cells(regions, SIZE), names, case["background"])
    assert found.labels[1::6, 2::7].tolist() == case["labels"]
    background, *of_classes = torch.tensor(case["scores"])
    here = (slice(3, None, 11), slice(4, None, 13))
    part = Segmentation(
        names, found.labels[here], found.scores[here], found.top_classes[:, *here], found.top_scores[:, *here]
    )
    check(part, torch.stack(of_classes), background)


@pytest.mark.parametrize(("size", "stride"), [((40, 90), 48), ((70, 61), 24), ((8, 200), 12), ((48, 48), 48)])
@pytest.mark.parametrize("wanted", [(31, 57), (120, 90)])
def test_cells_give_the_scores_of_all_windows(size, stride, wanted, monkeypatch):
    """Where a photo shrinks, where it grows, where windows overlap, and where there is one."""
    monkeypatch.setattr("ovseg_demo.methods.windows.WINDOW", SIDE)
    regions = drawn_regions(WindowLayout.of(size, min(size), stride, PATCH))
    texts = ClassTextEmbeddings(F.normalize(drawn("texts", (3, 6)), dim=1), torch.arange(3))
    scores = region_scores(regions, texts, 4.0, image_prior=False)
    best = scores.amax(-1, keepdim=True)
    background = (best < best.amax(1, keepdim=True).clamp(max=0.5)).float()
    expected = dense_scores(torch.cat([scores, background], -1), regions, wanted)
    found = name_cells(scores, cut_cells(regions, wanted), ("a", "b", "c"), 0.5)
    check(found, expected[:-1], expected[-1])
    assert (found.labels < 0).any()


def test_many_pixels_between_cells_are_ranked_a_few_at_once(monkeypatch):
    monkeypatch.setattr("ovseg_demo.methods.windows.WINDOW", SIDE)
    regions = drawn_regions(WindowLayout.of((60, 80), 48, 48, PATCH))
    texts = ClassTextEmbeddings(F.normalize(drawn("texts", (4, 6)), dim=1), torch.arange(4))
    scores = region_scores(regions, texts, 4.0, image_prior=False)

    def both() -> list[Segmentation]:
        cells = cut_cells(regions, (60, 80))
        return [
            name_cells(scores, cells, ("a", "b", "c", "d"), 0.4),
            name_patches(scores, regions, ("a", "b", "c", "d"), 0.4, (60, 80)),
        ]

    at_once = both()
    monkeypatch.setattr("ovseg_demo.methods.segclip.scores._SCORES_AT_ONCE", 500)
    for whole, parts in zip(at_once, both(), strict=True):
        for name in ("labels", "scores", "top_classes", "top_scores"):
            assert np.allclose(getattr(whole, name), getattr(parts, name), atol=1e-6)


def test_the_papers_recipe_interpolates_class_scores(monkeypatch):
    """One window on the trained grid: bilinear interpolation of the scores of patches."""
    monkeypatch.setattr("ovseg_demo.methods.windows.WINDOW", SIDE)
    regions = drawn_regions(WindowLayout.of((48, 48), 48, 48, PATCH))
    texts = ClassTextEmbeddings(F.normalize(drawn("texts", (3, 6)), dim=1), torch.arange(3))
    scores = region_scores(regions, texts, 4.0, image_prior=False)
    of_patches = scores[0][regions.soft[0].argmax(0)].permute(2, 0, 1)
    in_window = F.interpolate(of_patches[None], (48, 48), mode="bilinear", align_corners=False)
    expected = F.interpolate(in_window, (31, 57), mode="bilinear", align_corners=False)[0]
    found = name_patches(scores, regions, ("a", "b", "c"), 0.5, (31, 57))
    check(found, expected, torch.full((31, 57), 0.5))
    assert 0 < (found.labels < 0).mean() < 1


def test_the_image_prior_leaves_five_classes_in_a_window():
    regions = drawn_regions(WindowLayout.of((48, 48), 48, 48, PATCH))
    texts = ClassTextEmbeddings(F.normalize(drawn("texts", (9, 6)), dim=1), torch.arange(9))
    with_prior, without = (region_scores(regions, texts, 4.0, image_prior) for image_prior in (True, False))
    whole = (regions.windows @ texts.embeddings.T)[0]
    likely = whole.argsort(descending=True)[:5].sort().values
    assert (with_prior > 0).any((0, 1)).nonzero()[:, 0].tolist() == likely.tolist()
    among = (4.0 * regions.regions @ texts.embeddings[likely].T).softmax(-1)
    torch.testing.assert_close(with_prior[..., likely], among * without[..., likely])
    torch.testing.assert_close(without.sum(-1), torch.ones(1, 8))


def test_a_class_has_the_logit_of_its_best_word():
    regions = drawn_regions(WindowLayout.of((48, 48), 48, 48, PATCH))
    words = F.normalize(drawn("texts", (3, 6)), dim=1)
    found = region_scores(regions, ClassTextEmbeddings(words, torch.tensor([0, 1, 1])), 4.0, image_prior=False)
    logits = 4.0 * regions.regions @ words.T
    expected = torch.stack([logits[..., 0], logits[..., 1:].amax(-1)], -1).softmax(-1)
    torch.testing.assert_close(found, expected)


def test_the_best_region_of_each_window_is_never_background(monkeypatch):
    monkeypatch.setattr("ovseg_demo.methods.windows.WINDOW", SIDE)
    regions = drawn_regions(WindowLayout.of((48, 90), 48, 48, PATCH))
    texts = ClassTextEmbeddings(F.normalize(drawn("texts", (3, 6)), dim=1), torch.arange(3))
    scores = region_scores(regions, texts, 4.0, image_prior=True)
    cells = cut_cells(regions, (48, 90))
    found = name_cells(scores, cells, ("a", "b", "c"), 1.0)
    shown = {int(region) for region in np.unique(cells.shares.argmax(1)[cells.resized[found.labels >= 0]])}
    assert {0, 1} >= {region // 8 for region in shown}
    assert shown <= set((scores.amax(-1).argmax(1) + torch.tensor([0, 8])).tolist())
    whole = name_cells(scores, cells, ("a", "b", "c"), 0.0)
    assert (whole.labels >= 0).all()


def test_classes_beyond_the_names_are_never_drawn():
    regions = drawn_regions(WindowLayout.of((48, 48), 48, 48, PATCH))
    texts = ClassTextEmbeddings(F.normalize(drawn("texts", (2, 6)), dim=1), torch.arange(2))
    scores = region_scores(regions, texts, 4.0, image_prior=False)
    drawn_class = scores[0, :, 0] >= scores[0, :, 1]
    assert 0 < drawn_class.sum() < 8
    by_cells = name_cells(scores, cut_cells(regions, (48, 48)), ("a",), 0.0)
    by_patches = name_patches(scores, regions, ("a",), 0.0, (48, 48))
    expected = np.where(drawn_class.numpy()[window_regions(regions.soft[0], (48, 48))], 0, -1)
    assert np.array_equal(by_cells.labels, expected)
    assert {-1, 0} == set(np.unique(by_patches.labels))
    scores = scores.flip(-1)
    assert scores[0, :, 1].max() > scores[0, :, 0].max()
    strict = name_cells(scores, cut_cells(regions, (48, 48)), ("a",), 1.0)  # the best region of the named class remains
    expected = np.where(window_regions(regions.soft[0], (48, 48)) == int(scores[0, :, 0].argmax()), 0, -1)
    assert np.array_equal(strict.labels, expected)


def test_regions_of_windows_are_told_by_their_centre(monkeypatch):
    monkeypatch.setattr("ovseg_demo.methods.windows.WINDOW", SIDE)
    regions = drawn_regions(WindowLayout.of((48, 96), 48, 48, PATCH))
    cells = cut_cells(regions, (96, 192))
    expected = np.concatenate([window_regions(soft, (48, 48)) for soft in regions.soft], 1)
    assert np.array_equal(centre_map(cells, 8), expected)
    halves = [np.bincount(half.reshape(-1), minlength=8) for half in np.split(expected, 2, 1)]
    assert np.array_equal(centre_areas(cells), np.concatenate(halves))


def test_each_region_tells_its_five_best_words(monkeypatch):
    """A centre's regions in two windows are averaged by their area."""
    monkeypatch.setattr("ovseg_demo.methods.windows.WINDOW", SIDE)
    regions = drawn_regions(WindowLayout.of((48, 96), 48, 48, PATCH))
    regions.soft[:, 7] = 0  # no pixel is of this region
    cells, names = cut_cells(regions, (48, 96)), tuple("abcdefg")
    scores = torch.zeros(2, 8, 8)
    scores[0, 2], scores[1, 2] = torch.arange(8) / 10, torch.arange(7, -1, -1) / 10
    found = formed_regions(scores, cells, names)
    assert np.array_equal(found.regions, centre_map(cells, 8))
    assert [bool(caption) for caption in found.captions] == [True] * 7 + [False]
    left, right = (int((half == 2).sum()) for half in np.split(found.regions, 2, 1))
    assert left != right
    expected = (left * scores[0, 2] + right * scores[1, 2]) / (left + right)
    best = expected[:7].sort(descending=True, stable=True)
    words = ", ".join(f"{names[i]} {value:.2f}" for value, i in zip(best.values[:5], best.indices[:5], strict=True))
    assert found.captions[2] == f"{100 * (left + right) / (48 * 96):.0f} % of the photo: {words}"
