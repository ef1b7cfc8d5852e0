"""The parts of the training of "TagCLIP (mini)": its start, its lessons, its batches, its losses and what it counts."""

import numpy as np
import pytest
import torch
from accelerate import PartialState
from torch.nn import functional as F

from eval.metrics import Confusion
from ovseg_demo.methods.tagclip.decoder import MaskLogits
from ovseg_demo.methods.tagclip.mini import MiniTagCLIPModel
from ovseg_demo.methods.tagclip.windows import ImageEmbeddings
from ovseg_demo.models.mini.anchors import LOGIT_SCALE, Anchors
from ovseg_demo.weights import loading
from tests.helpers.mini_data import VOC, two_halves, write_labelled_set
from train.common.image_sets import labelled_sets
from train.common.labelled_batches import BACKGROUND
from train.mini.tagclip.batches import SplitSet, WindowBatches
from train.mini.tagclip.experiments import VARIANTS
from train.mini.tagclip.initialisation import GAIN, anchor_projection, initialise_model
from train.mini.tagclip.measurement import WEIGHTINGS, SegmentationCounts, _count_trusty
from train.mini.tagclip.training import TagCLIPMiniTraining, TrustyLoss
from train.tagclip.losses import UNSEEN


@pytest.mark.parametrize("variant", ["tagclip", "zegclip"])
def test_masks_begin_as_cosines(variant):
    torch.manual_seed(0)
    model = MiniTagCLIPModel(VARIANTS[variant].sizes).eval()
    initialise_model(model)
    patches = F.normalize(torch.randn(1, 384, 3, 4), dim=1)
    texts = F.normalize(torch.randn(5, 384), dim=1)
    logits = model.decoder(ImageEmbeddings(patches, F.normalize(torch.randn(1, 384), dim=1)), texts).classes
    cosines = torch.einsum("kd,bdhw->bkhw", F.normalize(texts - texts.mean(1, keepdim=True), dim=1), patches)
    torch.testing.assert_close(logits, GAIN**2 * 384**0.5 / 48 * cosines, rtol=1e-3, atol=1e-3)


def test_places_begin_as_the_linear_regression_of_the_anchors():
    embeddings, anchors = loading.load_state_dict("mini-anchors")["embeddings"].float(), Anchors("cpu")
    one = torch.eye(len(embeddings))
    scores = torch.randn(2, len(embeddings), generator=torch.Generator().manual_seed(0))
    kernel = (-(torch.cdist(embeddings, embeddings) ** 2)).exp()
    torch.testing.assert_close(anchors.logits(one, embeddings) / LOGIT_SCALE, kernel, atol=1e-3, rtol=1e-3)
    found = scores @ torch.linalg.inv(kernel + one) @ anchor_projection()
    wanted = scores @ torch.linalg.inv(embeddings @ embeddings.T + one) @ embeddings
    torch.testing.assert_close(found, wanted, atol=1e-2, rtol=1e-2)


@pytest.fixture
def split_set(tmp_path) -> SplitSet:
    write_labelled_set(tmp_path / "voc_train", VOC, {"photo1": two_halves(7, 16)})
    (source,) = labelled_sets(tmp_path)
    return SplitSet(source, ("sheep", "sofa"))


def test_unseen_classes_and_background_have_no_row(split_set):
    rows = split_set.rows()
    assert len(split_set.seen) == 18
    assert {"sheep", "sofa", "background"}.isdisjoint(split_set.seen)
    assert [int(rows[VOC.index(name)]) for name in split_set.seen] == list(range(18))
    assert rows[VOC.index("sheep")] == rows[VOC.index("sofa")] == UNSEEN
    assert (rows[VOC.index("background")], rows[-1]) == (BACKGROUND, -1)


def test_labels_are_mirrored_with_their_maps(split_set):
    column = torch.arange(4)
    views = {
        "anchors": column.half().expand(5, 2, 3, 4, 4),
        "coarse": column.half().expand(5, 2, 3, 4, 4),
        "fine": column.half().expand(5, 2, 3, 4, 4),
        "labels": column.short().expand(5, 2, 4, 4),
    }
    batch = WindowBatches(views, split_set.rows(), 16)(torch.Generator().manual_seed(0))
    assert batch["labels"].shape == (16, 4, 4)
    first = batch["labels"][:, 0, 0].tolist()
    assert set(first) == {0, 3}
    for name in ("anchors", "coarse", "fine"):
        assert batch[name].dtype == torch.float32
        assert batch[name][:, 0, 0, 0].tolist() == first


CHANCE = -np.log(0.5) * 0.5**2
"""The focal loss of a probability of one half, before alpha."""


@pytest.mark.parametrize(("background", "wanted"), [(False, (0.9 + 3 * 0.1) / 4), (True, (2 * 0.9 + 0.1) / 3)])
def test_what_is_to_look_new_counts_by_alpha_in_the_trusty_loss(background, wanted):
    training = TagCLIPMiniTraining(torch.nn.Identity(), torch.zeros(1, 384), TrustyLoss(0.9, background))
    labels = torch.tensor([[[UNSEEN, 0], [BACKGROUND, -1]]])
    assert training._trusty_loss(torch.zeros(1, 2, 2), labels).item() == pytest.approx(CHANCE * wanted)


def test_unseen_pixels_teach_nothing_about_the_masks_of_seen_classes():
    PartialState(cpu=True)
    logits = torch.zeros(1, 2, 2, 2, requires_grad=True)
    model = torch.nn.Module()
    model.adapter, model.decoder = lambda *_: None, lambda *_: MaskLogits(logits, None)
    labels = torch.tensor([[[0, UNSEEN], [BACKGROUND, -1]]])
    batch = {"anchors": None, "coarse": None, "fine": None, "labels": labels}
    sum(TagCLIPMiniTraining(model, torch.zeros(2, 384), TrustyLoss())(batch).values()).backward()
    assert (logits.grad[0].abs().amax(0) > 0).tolist() == [[True, False], [True, False]]


def test_only_a_decoder_with_a_trusty_token_has_its_loss():
    PartialState(cpu=True)
    batch = {
        "anchors": torch.randn(2, 1275, 1, 1),
        "coarse": torch.randn(2, 120, 2, 2),
        "fine": torch.randn(2, 48, 4, 4),
    }
    batch["labels"] = torch.tensor([[0, 1], [UNSEEN, BACKGROUND]]).expand(2, 2, 2)
    for name, variant in VARIANTS.items():
        found = TagCLIPMiniTraining(
            MiniTagCLIPModel(variant.sizes), F.normalize(torch.randn(2, 384), dim=1), variant.trusty
        )(batch)
        assert found.keys() == {"masks", "dice"} | ({"trusty"} if variant.sizes.trusty else set()), name
        assert all(value.isfinite() and value > 0 for value in found.values())


def test_the_area_is_how_often_an_unseen_pixel_looks_newer():
    counted = SegmentationCounts({title: Confusion(2) for title in WEIGHTINGS})
    trusty = np.array([[0.1, 0.3], [0.2, 0.9]])
    _count_trusty(counted.trusty, trusty, np.array([[0, 0], [1, 1]]), np.array([True, False]))
    assert counted.trusty_auc() == pytest.approx(3 / 4)
    assert counted.mean_trusty() == pytest.approx((0.2, 0.55), abs=0.005)
    _count_trusty(counted.trusty, trusty, np.full((2, 2), -1), np.array([True, False]))
    assert counted.trusty.sum() == 4


def test_numbers_are_of_the_split():
    counted = SegmentationCounts({title: Confusion(3) for title in WEIGHTINGS})
    counted.confusions["none"].add(np.array([[0, 0, 1, 2]]), np.array([[0, 0, 1, 0]]))
    pixels, seen, unseen, harmonic = counted.numbers("none", (True, True, False))
    assert (pixels, unseen, harmonic) == (75, 0, 0)
    assert seen == pytest.approx(100 * (2 / 3 + 1) / 2)
