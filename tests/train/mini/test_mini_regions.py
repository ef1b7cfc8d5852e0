import pytest
import torch
from torch.nn import functional as F

from ovseg_demo.models.mini.heads import ProjectionHead
from tests.helpers.mini_data import spelling
from train.common.run_folder import TrainingError
from train.mini.heads import regions
from train.mini.heads.features import ViewFeatures
from train.mini.heads.regions import RegionBatches, RegionBatchSizes, RegionTargets, RegionTraining
from train.mini.lexicon import Lexicon

SIZES = RegionBatchSizes(regions=64, captions=8, distractors=20)


def views(count: int, each: int, seed: int = 0) -> ViewFeatures:
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(count, each, 1280, generator=generator).half()
    return ViewFeatures(features, features[..., :1000], torch.arange(count), torch.zeros(count, dtype=torch.int64))


@pytest.fixture(scope="module")
def lexicon() -> Lexicon:
    return Lexicon(["cat", "dog", "sky"], spelling, restricted=False)


@pytest.fixture(scope="module")
def targets() -> list[RegionTargets]:
    return [
        RegionTargets(views(50, 4), ("cat",) * 48 + ("dog", "umbrella")),
        RegionTargets(views(3, 2, 1), ("sky", "dog", "unknown"), weak=True),
    ]


@pytest.fixture(scope="module")
def captions() -> list[tuple[ViewFeatures, torch.Tensor]]:
    return [(views(20, 2, 2), spelling([f"caption {i}" for i in range(60)]).view(20, 3, 384).half())]


def drawn(data: RegionBatches, seed: int = 0) -> dict:
    return data(torch.Generator().manual_seed(seed))


def test_a_batch_has_regions_with_their_own_words(targets, captions, lexicon):
    data = RegionBatches(targets, captions, lexicon, SIZES)
    owner = {}
    for target in targets:
        for features, word in zip(target.views.features, target.words, strict=True):
            owner |= {tuple(feature[:5].tolist()): word for feature in features.float()}
    seen = []
    for seed in range(5):
        batch = drawn(data, seed)
        assert batch["features"].shape == (64, 1280)
        assert batch["texts"].shape == (3 + 20, 384)
        assert batch["not_negatives"].shape == (64, 3 + 20)
        torch.testing.assert_close(batch["features"][:, :1000], batch["logits"])
        words = [owner[tuple(feature[:5].tolist())] for feature in batch["features"]]
        assert batch["words"].tolist() == lexicon.index(words).tolist()
        seen += words
    assert set(seen) == {"cat", "dog", "sky"}
    # 192 views of cats, 6 of dogs: a word's share is the root of its number.
    assert seen.count("cat") / seen.count("dog") == pytest.approx((192 / 6) ** 0.5, rel=0.5)


def test_the_generator_alone_decides_a_batch(targets, captions, lexicon):
    data = RegionBatches(targets, captions, lexicon, SIZES)
    torch.manual_seed(1)
    first = drawn(data)
    torch.manual_seed(2)
    torch.testing.assert_close(drawn(data), first, rtol=0, atol=0)
    assert not torch.equal(drawn(data, 1)["features"], first["features"])


def test_guessed_words_only_exclude_imagenets(targets, lexicon):
    data = RegionBatches(targets, [], lexicon, SIZES)
    batch = drawn(data, 3)
    weak = torch.tensor([tuple(f[:5].tolist()) for f in targets[1].views.features.flatten(0, 1).float()])
    for feature, word, excluded in zip(batch["features"], batch["words"], batch["not_negatives"], strict=True):
        others = [index for index in range(3) if index != word]
        assert not excluded[word]
        assert excluded[others].all() == excluded[others].any() == (feature[:5] == weak).all(1).any()


def test_photos_come_with_a_caption_of_their_own(targets, captions, lexicon):
    [(photos, texts)] = captions
    batch = drawn(RegionBatches(targets, captions, lexicon, SIZES))
    assert batch["photos"].shape == (8, 1280)
    numbers = set()
    for feature, caption in zip(batch["photos"].half(), batch["captions"].half(), strict=True):
        number, _ = (photos.features == feature).all(2).nonzero()[0].tolist()
        assert (texts[number] == caption).all(1).any()
        numbers.add(number)
    assert len(numbers) == 8


def test_sets_without_captions_train_without(targets, lexicon):
    data = RegionBatches(targets, [], lexicon, SIZES)
    assert not data.captioned
    losses = RegionTraining(ProjectionHead(1280, 384, 16), lexicon)(drawn(data))
    assert losses.keys() == {"words", "distillation"}


def test_no_region_to_learn_from_is_an_error_of_one_line(lexicon):
    for target in (RegionTargets(views(2, 1), ("umbrella", "sofa")), RegionTargets(views(0, 1), ())):
        with pytest.raises(TrainingError, match=r"^No region in the data has a word to be learnt\.$"):
            RegionBatches([target], [], lexicon, SIZES)


def test_words_that_are_no_negatives_cost_nothing(targets, captions, lexicon):
    training = RegionTraining(ProjectionHead(1280, 384, 16), lexicon)
    batch = drawn(RegionBatches(targets, captions, lexicon, SIZES))
    batch["not_negatives"][:, 5] = True

    def gradient(texts):
        training.zero_grad()
        training(batch | {"texts": texts})["words"].backward()
        return training.head.linear.weight.grad

    other = batch["texts"].clone()
    other[5] = -other[5]
    torch.testing.assert_close(gradient(other), gradient(batch["texts"]))
    other[6] = -other[6]
    assert not torch.allclose(gradient(other), gradient(batch["texts"]))


def test_training_lowers_every_loss(targets, captions, lexicon):
    torch.manual_seed(0)
    data = RegionBatches(targets, captions, lexicon, SIZES)
    training = RegionTraining(ProjectionHead(1280, 384, 32), lexicon)
    training.head.standardise(data.features)
    optimizer = torch.optim.AdamW(training.parameters(), 1e-3)
    before = {name: loss.item() for name, loss in training(drawn(data)).items()}
    for step in range(30):
        optimizer.zero_grad()
        sum(training(drawn(data, step)).values()).backward()
        optimizer.step()
    after = {name: loss.item() for name, loss in training(drawn(data)).items()}
    assert before.keys() == {"words", "captions", "distillation"}
    assert all(after[name] < before[name] for name in before), (before, after)


def test_captions_are_told_apart_both_ways():
    photos = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(0)), dim=1)
    captions = F.normalize(torch.randn(4, 8, generator=torch.Generator().manual_seed(1)), dim=1)
    scale, logits = torch.tensor(5.0), 5 * photos @ captions.T
    told = [-logits.log_softmax(axis).diagonal().mean() for axis in (0, 1)]
    torch.testing.assert_close(regions.contrastive_loss(photos, captions, scale), sum(told) / 2)


def test_distillation_is_least_where_the_teacher_is_matched():
    teacher = torch.randn(3, 1000, generator=torch.Generator().manual_seed(0)) * 4 + 7
    matched = regions.TEACHER_SCALE * (teacher - teacher.mean(1, keepdim=True)) / teacher.std(1, keepdim=True)
    assert regions.distillation_loss(matched, teacher).item() == pytest.approx(0, abs=1e-5)
    assert regions.distillation_loss(matched, 3 * teacher - 2).item() == pytest.approx(0, abs=1e-5)
    assert regions.distillation_loss(matched.flip(1), teacher) > 0.5


def test_smoothing_takes_no_notice_of_excluded_candidates():
    logits = torch.randn(3, 5, generator=torch.Generator().manual_seed(0))
    excluded = torch.tensor([[False] * 5, [False, True, False, True, False], [True, True, True, True, False]])
    right = torch.tensor([1, 2, 4])
    found = regions.smoothed_cross_entropy(logits, right, excluded)
    each = [
        F.cross_entropy(row[~out][None], torch.tensor([int((~out)[:own].sum())]), label_smoothing=0.05)
        for row, out, own in zip(logits, excluded, right.tolist(), strict=True)
    ]
    torch.testing.assert_close(found, torch.stack(each).mean())
