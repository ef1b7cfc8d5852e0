import numpy as np
import pytest
import torch

from ovseg_demo import result
from ovseg_demo.methods.ovseg import fusion
from ovseg_demo.proposals.base import MaskProposals
from ovseg_demo.proposals.cells import cut_cells


def proposals(*rows: str) -> MaskProposals:
    """Masks of one-row images, "1" inside."""
    masks = np.array([[[c == "1" for c in row]] for row in rows], bool)
    return MaskProposals.from_masks(masks, np.ones(len(rows), np.float32))


def painted(masks: MaskProposals, scores: list, granularity: float, names=("a", "b")):
    return fusion.fuse_masks(cut_cells(masks), np.array(scores, np.float32), names, granularity)


def test_selection_at_one_keeps_the_best_mask_of_each_class():
    scores = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]], np.float32)
    assert fusion.select_masks(scores, 1.0).tolist() == [True, False, True]


def test_selection_below_one_is_strict():
    scores = np.array([[0.9, 0.1], [0.72, 0.28], [0.3, 0.7], [0.73, 0.27]])
    # class a: more than 0.8 * 0.9 = 0.72; class b: more than 0.8 * 0.7 = 0.56
    assert fusion.select_masks(scores, 0.8).tolist() == [True, False, True, True]
    assert fusion.select_masks(scores, 0.0).all()


def test_selection_of_nothing():
    assert fusion.select_masks(np.zeros((0, 3)), 0.8).shape == (0,)


def test_a_kept_mask_paints_its_whole_row():
    # At 1, class a keeps mask 0 and class b, for want of better, keeps it too; mask 1 is not painted.
    result = painted(proposals("1100", "0011"), [[0.6, 0.4], [0.59, 0.35]], 1.0)
    assert result.labels.tolist() == [[0, 0, -1, -1]]
    assert np.allclose(result.scores, [[0.6, 0.6, 0, 0]])


def test_overlapping_rows_add_up():
    # In the overlap: a 0.6 + 0.3 = 0.9, b 0.4 + 0.7 = 1.1, so b wins with the mean 0.55.
    result = painted(proposals("1110", "0111"), [[0.6, 0.4], [0.3, 0.7]], 1.0)
    assert result.labels.tolist() == [[0, 1, 1, 1]]
    assert np.allclose(result.scores, [[0.6, 0.55, 0.55, 0.7]])
    assert result.top_classes[:, 0, 1].tolist() == [1, 0]
    assert np.allclose(result.top_scores[:, 0, 1], [0.55, 0.45])


def test_a_mask_picked_for_one_class_may_show_another():
    # Mask 1 is the best of class b, yet its own row says a.
    result = painted(proposals("1100", "0011"), [[0.9, 0.1], [0.7, 0.3]], 1.0)
    assert result.labels.tolist() == [[0, 0, 0, 0]]


def test_the_masks_of_a_single_class_compete_with_each_other():
    result = painted(proposals("1100", "0011"), [[0.9], [0.2]], 0.8, names=("a",))
    assert result.labels.tolist() == [[0, 0, -1, -1]]
    assert np.allclose(result.scores, [[0.9, 0.9, 0, 0]])
    result = painted(proposals("1100", "0011"), [[0.9], [0.8]], 0.8, names=("a",))
    assert result.labels.tolist() == [[0, 0, 0, 0]]


def test_painted_masks_share_what_they_carry():
    scores, values = np.array([[0.9, 0.1], [0.85, 0.15], [0.1, 0.1]], np.float32), np.array([[1, -2], [3, -6], [9, 9]])
    cells = cut_cells(proposals("1100", "0110", "0001"))
    found = fusion.paint(cells, scores, 0.9, values.astype(np.float32))  # the last mask is not painted
    assert found[cells.index[0]].tolist() == [[1, -2], [2, -4], [3, -6], [0, 0]]


def test_no_proposals_leave_everything_unlabelled():
    empty = MaskProposals.from_masks(np.zeros((0, 2, 3), bool), np.zeros(0))
    result = fusion.fuse_masks(cut_cells(empty), np.zeros((0, 2), np.float32), ("a", "b"), 0.8)
    assert (result.labels == -1).all()
    assert result.labels.shape == (2, 3)


@pytest.mark.parametrize("granularity", [0.0, 0.3, 0.8, 1.0])
def test_cells_agree_with_painting_pixel_by_pixel(random, granularity):
    masks = random.random((12, 17, 23)) < 0.2
    masks |= np.roll(masks, 1, axis=2)
    scores = random.dirichlet(np.ones(4), 12).astype(np.float32)
    result = painted(MaskProposals.from_masks(masks, np.ones(12)), scores, granularity, names=("a", "b", "c", "d"))

    if granularity == 1:
        kept = sorted(set(scores.argmax(0)))
    else:
        kept = [q for q in range(12) if any(scores[q, c] > granularity * scores[:, c].max() for c in range(4))]
    sums = np.einsum("qc,qhw->chw", scores[kept], masks[kept].astype(np.float32))
    covered = masks[kept].any(0)
    assert np.array_equal(result.labels, np.where(covered, sums.argmax(0), -1))
    means = sums / np.maximum(masks[kept].sum(0), 1)
    assert np.allclose(result.scores, np.where(covered, means.max(0), 0), atol=1e-6)


def test_many_classes_keep_five_best(random):
    scores = random.dirichlet(np.ones(300), 2).astype(np.float32)
    result = painted(proposals("10", "01"), scores, 0.5, names=tuple(map(str, range(300))))
    assert result.top_classes.shape == (5, 1, 2)
    assert result.top_classes[:, 0, 0].tolist() == np.argsort(-scores[0])[:5].tolist()


def halves(left: float, right: float) -> torch.Tensor:
    """Probabilities of two classes on a grid of 2 x 4 places: the first class left and right."""
    first = torch.tensor([left, left, right, right]).expand(2, 4)
    return torch.stack([first, 1 - first])


def test_places_name_what_no_mask_covers():
    masks = np.zeros((1, 8, 16), bool)
    masks[0, :, :8] = True
    cells = cut_cells(MaskProposals.from_masks(masks, np.ones(1)))
    scores = np.array([[0.9, 0.1]], np.float32)
    found = fusion.fuse_masks(cells, scores, ("a", "b"), 0.8, halves(0.8, 0.3))
    assert (found.labels[:, :8] == 0).all()
    assert (found.labels[:, 10:] == 1).all()
    assert np.allclose(found.scores[:, 12:], 0.7)
    alone = fusion.fuse_masks(cells, scores, ("a", "b"), 0.8)
    assert (alone.labels[:, 8:] == -1).all()


def test_masks_and_places_share_the_decision_by_their_geometric_mean():
    masks = np.ones((1, 8, 16), bool)
    cells = cut_cells(MaskProposals.from_masks(masks, np.ones(1)))
    scores = np.array([[0.6, 0.4]], np.float32)
    found = fusion.fuse_masks(cells, scores, ("a", "b"), 0.8, halves(0.1, 0.1))
    odds = (0.4 * 0.9 / (0.6 * 0.1)) ** 0.5
    assert (found.labels == 1).all()
    assert np.allclose(found.scores, odds / (1 + odds), atol=1e-5)


def test_a_cell_between_the_places_keeps_the_opinion_of_its_masks():
    masks = np.zeros((2, 8, 16), bool)
    masks[0] = True
    masks[1, 0, 0] = True
    cells = cut_cells(MaskProposals.from_masks(masks, np.ones(2)))
    scores = np.array([[0.2, 0.8], [0.9, 0.1]], np.float32)
    found = fusion.fuse_masks(cells, scores, ("a", "b"), 0.0, halves(0.5, 0.5))
    assert np.isclose(found.scores[0, 0], 0.55)
    assert found.labels[0, 0] == 0
    assert found.labels[7, 15] == 1


@pytest.mark.parametrize("size", [(31, 40), (9, 12), (17, 23), (34, 46)])
def test_another_size_interpolates_the_sums_of_the_painted_masks(random, size):
    masks = random.random((12, 17, 23)) < 0.2
    masks[:, :6, 9:] = False
    scores = random.dirichlet(np.ones(4), 12).astype(np.float32)
    cells = cut_cells(MaskProposals.from_masks(masks, np.ones(12)))
    found = fusion.fuse_masks(cells, scores, ("a", "b", "c", "d"), 0.8, size=size)

    kept = fusion.select_masks(scores, 0.8)
    sums = torch.einsum("qc,qhw->chw", torch.tensor(scores[kept]), torch.tensor(masks[kept]).float())
    large = torch.nn.functional.interpolate(sums[None], size, mode="bilinear", align_corners=False)[0].numpy()
    painted = large.sum(0) > 0
    assert 0 < painted.mean() < 1
    assert np.array_equal(found.labels, np.where(painted, large.argmax(0), -1))
    shares = large / np.maximum(large.sum(0), 1e-9)
    assert np.allclose(found.scores, shares.max(0), atol=1e-6)
    assert np.allclose(found.top_scores[1], np.sort(shares, 0)[-2], atol=1e-6)


def test_dense_scores_name_what_no_mask_covers_at_another_size_too():
    masks = np.zeros((1, 4, 8), bool)
    masks[0, :, :4] = True
    cells = cut_cells(MaskProposals.from_masks(masks, np.ones(1)))
    scores = np.array([[0.9, 0.1]], np.float32)
    found = fusion.fuse_masks(cells, scores, ("a", "b"), 0.8, halves(0.8, 0.3), size=(8, 16))
    assert (found.labels[:, :8] == 0).all()
    assert (found.labels[:, 12:] == 1).all()
    assert np.allclose(found.scores[:, 12:], 0.7)


def test_a_thousand_classes_are_enlarged_in_blocks(random, monkeypatch):
    """A map of all of them at the size of the photo would be 4000 times as many scores as a block has here."""
    largest = []

    class Watched(fusion.ResizedCells):
        def sample(self, rows, columns):
            found = super().sample(rows, columns)
            largest.append(found.numel())
            return found

    monkeypatch.setattr(fusion, "ResizedCells", Watched)
    monkeypatch.setitem(result._BLOCK, "cpu", 50_000)
    masks = random.random((5, 40, 60)) < 0.5
    scores = random.dirichlet(np.ones(1000), 5).astype(np.float32)
    cells = cut_cells(MaskProposals.from_masks(masks, np.ones(5)))
    found = fusion.fuse_masks(cells, scores, tuple(map(str, range(1000))), 0.8, size=(400, 500))
    assert found.size == (400, 500)
    assert len(largest) > 1
    assert max(largest) <= 50_000
