import numpy as np
import pytest
import torch
from PIL import Image

from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.heads import DenseHead
from tests.helpers.mini_data import CHANNELS, KEYS, VOC, Colours, spelling, two_halves, write_labelled_set
from train.common import image_sets
from train.mini.heads.dense import DenseBatches, DenseBatchSizes, DenseTraining, _interpolated
from train.mini.heads.windows import MAPS, STRIDE, WindowFeatures, WindowSizes
from train.mini.lexicon import Lexicon
from train.mini.lexicon import drop_restricted as kept_from

ANCHORS = Anchors("cpu")
SIZES = DenseBatchSizes(windows=4, places=30, distractors=20)
WINDOWS = WindowSizes(side=64, longest=(400, 720), of_photo=(4, 8))
PLACES = (64 // STRIDE) ** 2


def data(folder, restricted: bool = False, sizes: DenseBatchSizes = SIZES) -> DenseBatches:
    found, _ = image_sets.find_sets(folder)
    lexicon = Lexicon([name for source in found for name in source.names if name != "background"], spelling, False)
    windows = WindowFeatures(found, Colours(), ANCHORS, WINDOWS, folder / "windows")
    found = [kept_from(source) for source in found] if restricted else found
    return DenseBatches(found, lexicon, windows, sizes)


def drawn(data: DenseBatches, seed: int = 0) -> dict:
    return data(torch.Generator().manual_seed(seed))


@pytest.fixture
def two(tmp_path):
    """A set of VOC's with background, and one of streets without."""
    masks = {
        KEYS[0]: two_halves(VOC.index("cat"), 20, (360, 480)),
        KEYS[1]: two_halves(VOC.index("sofa"), 255, (360, 480)),
    }
    write_labelled_set(tmp_path / "voc_train", VOC, masks)
    write_labelled_set(tmp_path / "street_train", ["road", "sky", "snow"], {KEYS[0]: two_halves(0, 2, (300, 300))})
    return tmp_path


def test_places_are_drawn_from_their_windows_and_even_out_words(tmp_path):
    mask = np.zeros((400, 500), np.uint8)
    mask[::8, ::8] = 1
    mask[:, 450:] = 255
    write_labelled_set(tmp_path / "a_train", ["road", "sky"], {KEYS[0]: mask})
    batches = [drawn(data(tmp_path), seed) for seed in range(10)]
    for batch in batches:
        assert [batch[f"stride {stride}"].shape for stride in (4, 8, 16, 32)] == [
            (4, channels, 64 // stride, 64 // stride) for stride, channels in zip((4, 8, 16, 32), CHANNELS, strict=True)
        ]
        windows = batch["places"] // PLACES
        assert set(windows.tolist()) <= set(range(4))
        assert (windows.bincount() % SIZES.places == 0).all()  # a window of ignored pixels has none
    share = torch.cat([batch["words"] for batch in batches]).float().mean()
    assert 0.05 < share < 0.4  # one in 64 is sky; drawn by the root of that, one in nine


def test_a_place_has_the_word_of_its_pixel(tmp_path):
    write_labelled_set(tmp_path / "a_train", ["road", "sky"], {KEYS[0]: two_halves(0, 1, (400, 400))})
    folder = tmp_path / "a_train/images"
    colours = np.where(two_halves(0, 1, (400, 400))[..., None], np.uint8([0, 0, 255]), np.uint8([255, 0, 0]))
    Image.fromarray(colours.astype(np.uint8)).save(folder / f"{KEYS[0]}.jpg", quality=95)
    right = total = 0
    for seed in range(6):
        batch = drawn(data(tmp_path), seed)
        colour = batch["stride 4"].movedim(1, -1).flatten(0, 2)[batch["places"]]
        right += ((colour[:, 2] > colour[:, 0]) == (batch["words"] == 1)).sum().item()
        total += len(colour)
    assert right / total > 0.95


def test_the_generator_alone_decides_a_batch(two):
    made = data(two)
    torch.manual_seed(1)
    first = drawn(made)
    torch.manual_seed(2)
    torch.testing.assert_close(drawn(made), first, rtol=0, atol=0)
    assert not torch.equal(drawn(made, 1)["stride 4"], first["stride 4"])


def test_a_place_meets_only_the_words_of_its_set(two):
    made = data(two)
    words = made._lexicon.words
    none, seen = len(words), set()
    for seed in range(12):
        batch = drawn(made, seed)
        for word, excluded in zip(batch["words"].tolist(), batch["excluded"], strict=True):
            assert not excluded[word]
            if word == none:
                assert excluded[none + 1 :].all()  # background may be anything that ImageNet knows
            met = {name for name, out in zip([*words, "none"], excluded[: none + 1].tolist(), strict=True) if not out}
            street = word < none and words[word] in ("road", "sky", "snow")
            assert met == ({"road", "sky", "snow"} if street else {*VOC[:20], "none"})
            seen.add([*words, "none"][word])
    assert seen == {"cat", "sofa", "none", "road", "snow"}


def test_a_restricted_set_teaches_no_place_of_what_is_kept_from_it(two):
    made = data(two, restricted=True)
    words = made._lexicon.words
    assert {"sofa", "snow"} < set(words)  # even if others teach them
    seen = {[*words, "none"][word] for seed in range(12) for word in drawn(made, seed)["words"]}
    assert seen == {"cat", "none", "road"}


def test_windows_where_nothing_is_taught_change_nothing(tmp_path):
    write_labelled_set(tmp_path / "a_train", ["road", "sky"], {KEYS[0]: two_halves(255, 255, (300, 300))})
    batch = drawn(data(tmp_path))
    assert len(batch["places"]) == len(batch["words"]) == len(batch["excluded"]) == 0
    training = DenseTraining(DenseHead(CHANNELS, 384, 16), ANCHORS)
    loss = training(batch)["places"]
    assert loss.item() == 0
    loss.backward()
    assert all(value.grad is not None and not value.grad.any() for value in training.parameters())


def test_training_lowers_the_loss(two):
    torch.manual_seed(0)
    made, training = data(two), DenseTraining(DenseHead(CHANNELS, 384, 16), ANCHORS)
    batches = [drawn(made, seed) for seed in range(3)]
    optimizer = torch.optim.AdamW(training.parameters(), 3e-3)
    before = training(batches[0])["places"].item()
    for step in range(24):
        optimizer.zero_grad()
        training(batches[step % 3])["places"].backward()
        optimizer.step()
    assert training(batches[0])["places"].item() < 0.7 * before


def test_windows_are_embedded_as_if_each_were_alone(two):
    batch, training = drawn(data(two)), DenseTraining(DenseHead(CHANNELS, 384, 16), ANCHORS)
    every = batch | {"places": torch.arange(4 * PLACES)}
    together = training.embed_places(every)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(4 * PLACES))
    alone = {name: level[2:3] for name, level in batch.items() if name in MAPS}
    torch.testing.assert_close(
        training.embed_places(alone | {"places": torch.arange(PLACES)}), together[2 * PLACES : 3 * PLACES]
    )


def test_logits_of_the_anchors_are_interpolated_as_in_the_demo():
    maps = torch.randn(3, 5, 4, 6)
    fine = torch.nn.functional.interpolate(maps, (32, 48), mode="bilinear").movedim(1, -1).flatten(0, 2)
    places = torch.randint(3 * 32 * 48, (200,)).sort().values
    torch.testing.assert_close(_interpolated(maps, (32, 48), places), fine[places], atol=1e-5, rtol=1e-5)


def test_the_head_is_taught_what_the_anchors_do_not_know(two):
    """Where the anchors alone are sure of the right word, the loss is small whatever the head says."""
    made = data(two)
    batch = drawn(made)
    training = DenseTraining(DenseHead(CHANNELS, 384, 16), ANCHORS)
    before = training(batch)["places"]
    texts, weights = batch["texts"], batch["anchors"]
    wanted = torch.zeros(len(weights), *weights.shape[2:], len(texts))
    for place, word in zip(batch["places"].tolist(), batch["words"].tolist(), strict=True):
        window, row, column = place // PLACES, place % PLACES // 16, place % 16
        if word < len(texts):
            wanted[window, row // 8, column // 8, word] = 40
    kernel = ANCHORS.logits(torch.eye(weights.shape[1]), texts)  # (A, W)
    solved = torch.linalg.lstsq(kernel.T, wanted.flatten(0, 2).T).solution.T
    sure = batch | {"anchors": solved.unflatten(0, wanted.shape[:3]).movedim(-1, 1)}
    assert training(sure)["places"] < before
