"""Which sets and photos the batches are drawn from."""

import torch

from train.common.sampling import SetSampler


def test_sets_are_drawn_by_the_root_of_photos_times_classes():
    sampler = SetSampler(photos=[4, 100], classes=[1, 9])
    drawn = torch.tensor(sampler.draw_sets(16_000, torch.Generator().manual_seed(0)))
    assert abs((drawn == 0).float().mean().item() - 2 / 32) < 0.01


def test_photos_of_a_set_are_as_likely():
    sampler, generator = SetSampler(photos=[7, 3], classes=[1, 1]), torch.Generator().manual_seed(0)
    counts = torch.bincount(torch.tensor([sampler.draw_photo(1, generator) for _ in range(3000)]), minlength=3)
    assert len(counts) == 3
    assert (counts - 1000).abs().max() < 100


def test_the_generator_alone_decides():
    sampler = SetSampler(photos=[5, 5, 5], classes=[2, 3, 4])
    first, second = (sampler.draw_sets(20, torch.Generator().manual_seed(3)) for _ in range(2))
    assert first == second
