import pytest
import torch

from ovseg_demo.models.mini.heads import DenseHead, Heads, ProjectionHead
from ovseg_demo.models.mini.towers import ImageTower

CHANNELS = (8, 12, 16, 24)


def seeded(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def pyramid(height: int, width: int, batch: int = 2, channels: tuple[int, ...] = CHANNELS) -> list[torch.Tensor]:
    """Maps at strides 4, 8, 16 and 32 of photos of (height, width)."""
    strides = (4, 8, 16, 32)
    return [seeded(batch, c, height // s, width // s, seed=s) for c, s in zip(channels, strides, strict=True)]


@pytest.fixture(scope="module")
def heads() -> Heads:
    torch.manual_seed(0)
    heads = Heads().eval().requires_grad_(False)
    for name in ("projection", "dense"):
        getattr(heads, f"{name}_mean").copy_(0.1 * seeded(384))
        getattr(heads, f"{name}_scale").fill_(7)
    return heads


def test_projected_features_are_unit_vectors_each_on_its_own():
    head, features = ProjectionHead(20, 6, 10).eval(), seeded(5, 20)
    found = head(features)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(5))
    torch.testing.assert_close(head(features[2:3]), found[2:3])
    assert head(features[:0]).shape == (0, 6)


def test_a_projection_begins_as_its_linear_map():
    head, features = ProjectionHead(20, 6, 10).eval(), seeded(5, 20)
    linear = features @ head.linear.weight.T
    torch.testing.assert_close(head(features), torch.nn.functional.normalize(linear, dim=1))


def test_standardised_features_may_be_shifted_and_scaled():
    head, features = ProjectionHead(20, 6, 10).eval(), 30 * seeded(50, 20)
    head.standardise(features)
    before = head(features)
    head.standardise(100 * features + 40)
    torch.testing.assert_close(head(100 * features + 40), before, atol=1e-3, rtol=0)
    constant = torch.ones(50, 20)
    head.standardise(constant)
    assert head(constant + 1e-3).isfinite().all()


def test_dropout_is_for_training_only():
    head, features = ProjectionHead(20, 6, 10, dropout=0.5), seeded(5, 20)
    assert not torch.equal(head(features), head(features))
    head.eval()
    assert torch.equal(head(features), head(features))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (64, 96), (32, 512)])
def test_dense_features_lie_at_every_fourth_pixel(height, width):
    head = DenseHead(CHANNELS, 6, 16)
    maps = head.maps(pyramid(height, width))
    assert maps.shape == (2, 16, height // 4, width // 4)
    embedded = head.embed(maps.movedim(1, -1))
    torch.testing.assert_close(embedded.norm(dim=-1), torch.ones(2, height // 4, width // 4))


def test_photos_of_a_batch_do_not_meet():
    head, levels = DenseHead(CHANNELS, 6, 16), pyramid(64, 64)
    together = head.maps(levels)
    torch.testing.assert_close(head.maps([level[1:] for level in levels]), together[1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("level", range(4))
def test_every_level_tells_something(level):
    head, levels = DenseHead(CHANNELS, 6, 16), pyramid(64, 64)
    before = head.maps(levels)
    levels[level] = levels[level].flip(2)
    assert not torch.allclose(head.maps(levels), before, atol=1e-3)


def test_all_of_a_dense_head_is_trained():
    head = DenseHead(CHANNELS, 6, 16)
    head.embed(head.maps(pyramid(64, 64)).movedim(1, -1))[..., 0].sum().backward()
    assert all(value.grad is not None and value.grad.any() for value in head.parameters())


def test_embeddings_are_scaled_and_free_of_their_mean(heads):
    features = seeded(3, ImageTower.WIDTH)
    found = heads.region_embeddings(features)
    torch.testing.assert_close(found / 7 + heads.projection_mean, heads.projection(features))
    levels = pyramid(32, 64, channels=ImageTower.CHANNELS)
    places = heads.dense_embeddings(levels)
    assert places.shape == (2, 8, 16, 384)
    torch.testing.assert_close((places / 7 + heads.dense_mean).norm(dim=-1), torch.ones(2, 8, 16))


def test_heads_without_training_say_so_in_their_state():
    state = Heads().state_dict()
    for name in ("projection", "dense"):
        assert not state[f"{name}_mean"].any()
        assert state[f"{name}_scale"] == 1
    assert state.keys() >= {"projection.mean", "projection.spread", "dense.out.weight"}
