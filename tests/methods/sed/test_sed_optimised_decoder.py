"""SED's decoder for inference computes what `Decoder` computes, whatever the size of chunks."""

import pytest
import torch
from torch import nn

from ovseg_demo.errors import Cancelled
from ovseg_demo.methods.sed import optimised_decoder
from ovseg_demo.methods.sed.decoder import Decoder, DecoderSizes
from ovseg_demo.methods.sed.optimised_decoder import OptimisedDecoder, likeliest_classes

SIZES = DecoderSizes(prompts=5, skips=(6, 5, 4), widths=(32, 32, 16, 16), guides=(6, 4, 2), heads=4)
HEIGHT, WIDTH = 5, 3  # neither even nor square


def decoder(sizes: DecoderSizes = SIZES) -> Decoder:
    """One whose every weight, layer scale and bias matters."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(0)
        made = Decoder(sizes).requires_grad_(False)
        for name, value in made.named_parameters():
            if value.ndim == 1:
                nn.init.normal_(value, 1.0 if name.endswith(("weight", "layer_scale")) else 0.0, 0.3)
    return made


def decoder_inputs(classes: int, sizes: DecoderSizes = SIZES) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Cosines that differ as little as CLIP's do, and image features."""
    rng = torch.Generator().manual_seed(1)
    cost = 0.2 + 0.03 * torch.randn(classes, sizes.prompts, HEIGHT, WIDTH, generator=rng)
    finer = zip(sizes.skips, (2, 4, 8), strict=True)
    return cost, [torch.randn(channels, HEIGHT * n, WIDTH * n, generator=rng) for channels, n in finer]


def expected(cost: torch.Tensor, skips: list[torch.Tensor], sizes: DecoderSizes = SIZES) -> list[torch.Tensor]:
    return [logits[0] for logits in decoder(sizes)(cost[None], [skip[None] for skip in skips])]


@pytest.mark.parametrize("classes", [1, 7])
@pytest.mark.parametrize(
    "sizes", [SIZES, DecoderSizes(prompts=1, skips=(6, 5, 4), widths=(16, 32, 16, 16), guides=(1, 3, 2))]
)
def test_it_computes_what_the_decoder_does(classes, sizes):
    cost, skips = decoder_inputs(classes, sizes)
    decoded = OptimisedDecoder(decoder(sizes))(cost, skips)
    for logits, wanted, kept in zip(decoded.logits, expected(cost, skips, sizes), decoded.kept_classes, strict=True):
        torch.testing.assert_close(logits, wanted, atol=1e-5, rtol=1e-5)
        assert torch.equal(kept, torch.arange(classes))


def test_the_size_of_chunks_changes_nothing(monkeypatch):
    cost, skips = decoder_inputs(7)
    whole = OptimisedDecoder(decoder())(cost, skips)
    monkeypatch.setattr(optimised_decoder, "_CHUNK", {"cpu": 1})
    cut = OptimisedDecoder(decoder())(cost, skips)
    for logits, wanted in zip(cut.logits, whole.logits, strict=True):
        torch.testing.assert_close(logits, wanted, atol=1e-6, rtol=1e-5)


def test_bfloat16_moves_probabilities_little():
    cost, skips = decoder_inputs(7)
    for logits, wanted in zip(
        OptimisedDecoder(decoder(), "bfloat16")(cost, skips).logits, expected(cost, skips), strict=True
    ):
        assert logits.dtype == torch.float32
        difference = (logits.sigmoid() - wanted.sigmoid()).abs().max()
        assert 0 < difference < 0.02
        assert difference < 0.1 * wanted.sigmoid().std()


def test_bfloat16_does_not_round_what_cosines_have_in_common():
    cost, skips = decoder_inputs(7)
    base = OptimisedDecoder(decoder(), "bfloat16")(cost, skips).logits[0]
    shifted = OptimisedDecoder(decoder(), "bfloat16")(cost + 3, skips).logits[0]  # a rounded 3 would be off by 0.008
    exact = expected(cost + 3, skips)[0]
    assert (shifted - exact).abs().max() < 2 * (base - expected(cost, skips)[0]).abs().max()


def test_early_rejection_is_the_decoder_on_fewer_and_fewer_classes():
    cost, skips = decoder_inputs(40)
    decoded = OptimisedDecoder(decoder())(cost, skips, (4, 2, 1))
    counts = [len(kept) for kept in decoded.kept_classes]
    assert counts == sorted(counts, reverse=True)
    assert len(set(counts)) == 4
    torch.testing.assert_close(decoded.logits[0], expected(cost, skips)[0], atol=1e-5, rtol=1e-5)
    for stage, kept in enumerate(decoded.kept_classes):
        assert decoded.logits[stage].shape == (len(kept), HEIGHT * 2**stage, WIDTH * 2**stage)
    first = decoded.kept_classes[1]
    assert torch.equal(first, _among(decoded.logits[0], 4))
    torch.testing.assert_close(decoded.logits[1], expected(cost[first], skips)[1], atol=1e-5, rtol=1e-5)
    assert torch.equal(decoded.kept_classes[2], first[_among(decoded.logits[1], 2)])
    assert torch.equal(decoded.kept_classes[3], decoded.kept_classes[2][_among(decoded.logits[2], 1)])


@pytest.mark.parametrize("k", [7, 100])
def test_rejection_that_rejects_none_is_the_full_path(k):
    cost, skips = decoder_inputs(7)
    full, same = OptimisedDecoder(decoder())(cost, skips), OptimisedDecoder(decoder())(cost, skips, (k, k, k))
    assert all(torch.equal(one, other) for one, other in zip(full.logits, same.logits, strict=True))
    assert all(torch.equal(one, other) for one, other in zip(full.kept_classes, same.kept_classes, strict=True))


@pytest.mark.parametrize("k", [1, 3])
def test_kept_classes_are_among_the_likeliest_somewhere(k):
    logits = torch.randn(50, 2, 3, generator=torch.Generator().manual_seed(0))
    assert likeliest_classes(logits, k).tolist() == _among(logits, k).tolist()
    assert len(likeliest_classes(logits, k)) < 50


def test_it_can_be_stopped_before_every_stage():
    cost, skips = decoder_inputs(3)
    fractions = []
    OptimisedDecoder(decoder())(cost, skips, report=fractions.append)
    assert fractions == [0.25, 0.5, 0.75]

    def stopped(fraction):
        if fraction == 0.5:
            raise Cancelled

    with pytest.raises(Cancelled):
        OptimisedDecoder(decoder())(cost, skips, report=stopped)


def test_it_leaves_the_decoder_and_its_gradients_alone():
    made = decoder().requires_grad_(True)
    before = {name: value.clone() for name, value in made.state_dict().items()}
    decoded = OptimisedDecoder(made, "bfloat16")(*decoder_inputs(3))
    assert not any(logits.requires_grad for logits in decoded.logits)
    assert all(torch.equal(value, before[name]) for name, value in made.state_dict().items())
    assert all(value.requires_grad and value.dtype == torch.float32 for value in made.parameters())


def _among(logits: torch.Tensor, k: int) -> torch.Tensor:
    """Sorted whole, place by place."""
    chosen = set()
    for place in logits.flatten(1).T:
        chosen |= set(place.argsort(descending=True)[:k].tolist())
    return torch.tensor(sorted(chosen))
