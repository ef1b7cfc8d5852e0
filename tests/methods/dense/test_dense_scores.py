"""From patches to scores of pixels: windows, refinement, ranking and votes, against derivations step by step."""

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods.class_texts import ClassTextEmbeddings
from ovseg_demo.methods.dense import pamr, ranking, scores
from ovseg_demo.methods.dense.model import DenseFeatures
from ovseg_demo.methods.dense.ranking import refined_ranking
from ovseg_demo.methods.dense.scores import PixelScores
from ovseg_demo.methods.dense.votes import vote
from ovseg_demo.methods.windows import Axis, WindowLayout
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.proposals.cells import cut_cells
from ovseg_demo.result import Segmentation

WIDTH, PATCH = 6, 16


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def texts(*words_of_classes: int) -> ClassTextEmbeddings:
    indices = [index for index, words in enumerate(words_of_classes) for _ in range(words)]
    return ClassTextEmbeddings(F.normalize(drawn(len(indices), WIDTH, seed=7), dim=1), torch.tensor(indices))


def features(layout: WindowLayout) -> DenseFeatures:
    patches = drawn(layout.count, layout.grid[0] * layout.grid[1], WIDTH, seed=3)
    return DenseFeatures(F.normalize(patches, dim=-1), layout)


def enlarged_step_by_step(read: DenseFeatures, embeddings: Tensor, size: tuple[int, int]) -> Tensor:
    """Cosines (K, H, W): each window enlarged, put into its place, averaged, and all enlarged to the photo."""
    layout, windows = read.layout, iter(read.patches)
    total = torch.zeros(len(embeddings), *layout.size)
    count = torch.zeros(layout.size)
    for top in layout.rows.starts:
        for left in layout.columns.starts:
            cosines = (next(windows) @ embeddings.T).T.unflatten(1, layout.grid)
            side = (layout.rows.window, layout.columns.window)
            here = slice(top, top + side[0]), slice(left, left + side[1])
            total[:, *here] += F.interpolate(cosines[None], side, mode="bilinear", align_corners=False)[0]
            count[here] += 1
    assert (count > 0).all()
    return F.interpolate((total / count)[None], size, mode="bilinear", align_corners=False)[0]


LAYOUTS = [
    ((480, 640), 336, 112, 6),
    ((640, 480), 336, 112, 6),
    ((100, 100), 336, None, 1),
    ((90, 400), 336, 200, 16),
    ((30, 700), 336, 112, 18),  # the short side becomes 88, less than a window
    ((50, 60), 120, 56, 1),
]


@pytest.mark.parametrize(("size", "short", "stride", "count"), LAYOUTS)
def test_cosines_are_those_of_enlarging_windows_one_by_one(size, short, stride, count):
    layout = WindowLayout.of(size, short, stride, PATCH)
    assert layout.count == count
    read, words = features(layout), texts(1, 1, 1)
    found = PixelScores(read, words, size).cosines(slice(None))
    expected = enlarged_step_by_step(read, words.embeddings, size)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_the_published_layout():
    layout = WindowLayout.of((480, 640), 336, 112, PATCH)
    assert layout.size == (336, 448)
    assert (layout.rows.starts, layout.columns.starts) == ((0, 112), (0, 112, 224))
    assert layout.grid == (14, 14)
    assert WindowLayout.of((100, 2000), 336, 112, PATCH).size == (102, 2048)
    assert WindowLayout.of((1, 3000), 336, 112, PATCH).size == (16, 2048)
    whole = WindowLayout.of((375, 500), 336, None, PATCH)
    assert (whole.size, whole.count, whole.grid) == ((336, 448), 1, (21, 28))
    shifted = WindowLayout.of((375, 500), 350, 112, PATCH)
    assert shifted.columns.starts == (0, 112, 224, 467 - 224)


def test_windows_are_cut_in_reading_order():
    layout = WindowLayout(Axis.cut(260, 112, PATCH), Axis.cut(300, 112, PATCH))
    pixels = drawn(3, 260, 300)
    found = list(layout.cut(pixels))
    assert len(found) == layout.count == 4
    assert torch.equal(found[1], pixels[:, :224, 76:])
    assert torch.equal(found[2], pixels[:, 36:, :224])


def probabilities(cosines: Tensor, class_indices: Tensor, classes: int) -> Tensor:
    """Softmax over words, the best word of each class, renormalised: (C, H, W)."""
    of_words = (40 * cosines).softmax(0)
    best = torch.stack([of_words[class_indices == index].amax(0) for index in range(classes)])
    return best / best.sum(0)


@pytest.mark.parametrize("words", [(1, 1, 1), (2, 1, 3), (1, 26)])
def test_scores_are_the_published_probabilities(words, monkeypatch):
    monkeypatch.setattr(scores, "_BAND_COSINES", 2000)  # several bands
    size, layout = (45, 60), WindowLayout.of((45, 60), 240, 112, PATCH)
    read, embedded = features(layout), texts(*words)
    made = PixelScores(read, embedded, size)
    expected = probabilities(enlarged_step_by_step(read, embedded.embeddings, size), embedded.class_indices, len(words))
    rows, columns = np.divmod(np.random.default_rng(0).permutation(45 * 60)[:500], 60)
    found = made.sample(rows, columns)
    assert found.shape == (len(words), 500)
    torch.testing.assert_close(found / found.sum(0), expected[:, rows, columns], atol=1e-5, rtol=0)
    result = Segmentation.from_scores(tuple(map(str, words)), made, size)
    assert (result.labels == expected.argmax(0).numpy()).mean() > 0.999
    np.testing.assert_allclose(result.scores, expected.amax(0), atol=1e-5)


def test_opposite_cosines_neither_vanish_nor_overflow():
    assert scores.word_scores(torch.tensor([-1.0])) > torch.finfo(torch.float32).tiny
    assert (1000 * scores.word_scores(torch.tensor([1.0]))).isfinite()


def refined_by_loops(image: np.ndarray, values: np.ndarray) -> np.ndarray:
    """PAMR, pixel by pixel; (3, H, W) and (K, H, W)."""
    _, height, width = image.shape
    steps = [(y, x) for y in (-1, 0, 1) for x in (-1, 0, 1)]

    def at(y: int, x: int) -> tuple[int, int]:
        return min(max(y, 0), height - 1), min(max(x, 0), width - 1)

    weights = {}
    for y in range(height):
        for x in range(width):
            near = [at(y + d * dy, x + d * dx) for d in (8, 16) for dy, dx in steps if (dy, dx) != (0, 0)]
            logits = np.zeros(16)
            for channel in image:
                everything = [channel[at(y + d * dy, x + d * dx)] for d in (8, 16) for dy, dx in steps]
                spread = 1e-8 + 0.1 * np.std(everything, ddof=1)
                logits -= np.array([abs(channel[y, x] - channel[place]) for place in near]) / spread / 3
            powers = np.exp(logits - logits.max())
            weights[y, x] = list(zip(near, powers / powers.sum(), strict=True))
    for _ in range(10):
        after = np.zeros_like(values)
        for (y, x), neighbours in weights.items():
            for (near_y, near_x), weight in neighbours:
                after[:, y, x] += weight * values[:, near_y, near_x]
        values = after
    return values


@pytest.mark.parametrize("size", [(19, 21), (1, 40), (33, 2)])
def test_refinement_is_what_its_loops_say(size):
    image, values = drawn(3, *size), drawn(2, *size, seed=5)
    weights = pamr.affinities(image)
    torch.testing.assert_close(weights.sum(0), torch.ones(size))
    expected = torch.from_numpy(refined_by_loops(image.double().numpy(), values.double().numpy()))
    torch.testing.assert_close(pamr.refine(values, weights).double(), expected, atol=1e-5, rtol=0)


def test_refinement_of_one_colour_keeps_constant_scores():
    image, values = torch.zeros(3, 20, 30), torch.full((1, 20, 30), 0.3)
    torch.testing.assert_close(pamr.refine(values, pamr.affinities(image)), values)
    assert torch.equal(values, torch.full((1, 20, 30), 0.3))


@pytest.mark.parametrize("words", [(1,), (1,) * 3, (2, 1, 1, 4, 1, 1, 1, 1, 1, 1), (9, 11), (2, 1, 1, 1, 1, 1, 1)])
def test_the_ranking_is_that_of_all_refined_scores(words, monkeypatch):
    """Of one class, of few, and of more than are refined at once; with several words."""
    refined_at_once, refine = [], pamr.refine

    def counted(some: Tensor, weights: Tensor) -> Tensor:
        refined_at_once.append(len(some))
        return refine(some, weights)

    monkeypatch.setattr(pamr, "refine", counted)
    size = (24, 32)
    read, embedded = features(WindowLayout.of(size, 240, 112, PATCH)), texts(*words)
    made, image = PixelScores(read, embedded, size), drawn(3, *size)
    reported = []
    found = refined_ranking(made, image, reported.append)
    assert max(refined_at_once) <= 8
    assert reported == sorted(reported)
    assert reported[-1] == 1
    refined = refine(made.cosines(slice(None)), pamr.affinities(image))
    names = tuple(map(str, range(len(words))))
    expected = Segmentation.from_scores(names, probabilities(refined, embedded.class_indices, len(words)), size)
    result = found.segmentation(names)
    assert (result.labels == expected.labels).mean() > 0.999
    np.testing.assert_allclose(result.scores, expected.scores, atol=1e-5)
    np.testing.assert_allclose(result.top_scores, expected.top_scores, atol=1e-5)
    clear = expected.top_scores > 1e-4  # the interpolation of given scores leaks a little, which reorders the least
    assert (result.top_classes == expected.top_classes)[clear].mean() > 0.999
    for ours, theirs in ((result.labels, expected.labels), (result.top_classes, expected.top_classes)):
        assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape)
    assert result.top_scores.dtype == result.scores.dtype == np.float32
    assert found.nbytes == 24 * 32 * (12 * min(5, len(words)) + 4)


def test_a_thousand_classes_need_no_memory_of_their_own(monkeypatch):
    monkeypatch.setattr(pamr, "refine", lambda some, _: some)
    size, classes = (24, 32), 1000
    read = features(WindowLayout.of(size, 240, 112, PATCH))
    made = PixelScores(read, texts(*[1] * classes), size)
    found = refined_ranking(made, drawn(3, *size), lambda _: None)
    assert found.classes.shape == (ranking.TOP, *size)
    scores_of_all = made.at_rows(slice(None))
    torch.testing.assert_close(found.total, scores_of_all.sum(0))
    torch.testing.assert_close(found.scores, scores_of_all.topk(ranking.TOP, 0).values)


def voted_by_loops(found: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Probabilities (C, H, W) after the vote, from those before; zero where no mask is."""
    means = [found[:, mask].mean(1) for mask in masks]
    voted = np.zeros_like(found)
    for y, x in np.ndindex(*found.shape[1:]):
        over = [mean for mean, mask in zip(means, masks, strict=True) if mask[y, x]]
        if over:
            voted[:, y, x] = np.mean(over, 0)
    return voted


@pytest.mark.parametrize("block", [2**22, 200])
def test_masks_share_their_mean_probabilities_and_other_pixels_stay(monkeypatch, block):
    monkeypatch.setattr("ovseg_demo.methods.dense.votes._BLOCK", block)
    size, names = (24, 32), ("a", "b", "c")
    made = PixelScores(features(WindowLayout.of(size, 240, 112, PATCH)), texts(2, 1, 1), size)
    masks = np.zeros((3, *size), bool)
    masks[0, 2:12, 3:20], masks[1, 8:20, 15:30], masks[2, 4:6, 5:9] = True, True, True
    before = Segmentation.from_scores(names, made, size)
    after = vote(before, made, cut_cells(MaskProposals.from_masks(masks, np.ones(3))))
    found = made.at_rows(slice(None))
    expected = voted_by_loops((found / found.sum(0)).numpy(), masks)
    covered = masks.any(0)
    assert np.array_equal(after.labels[~covered], before.labels[~covered])
    assert np.array_equal(after.scores[~covered], before.scores[~covered])
    assert np.array_equal(after.labels[covered], expected.argmax(0)[covered])
    np.testing.assert_allclose(after.scores[covered], expected.max(0)[covered], atol=1e-5)


def test_without_masks_a_vote_changes_nothing():
    size = (24, 32)
    made = PixelScores(features(WindowLayout.of(size, 240, 112, PATCH)), texts(1, 1), size)
    before = Segmentation.from_scores(("a", "b"), made, size)
    none = MaskProposals.from_masks(np.zeros((0, *size), bool), np.zeros(0))
    after = vote(before, made, cut_cells(none))
    assert np.array_equal(after.labels, before.labels)
    assert np.array_equal(after.top_scores, before.top_scores)
