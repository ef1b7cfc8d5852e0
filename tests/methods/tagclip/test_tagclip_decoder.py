"""TagCLIP's decoder, and ZegCLIP's, against the numbers of the references, and what must hold whatever its weights."""

import pytest
import torch
from torch import Tensor

from ovseg_demo.methods.tagclip.checkpoint import split_checkpoint
from ovseg_demo.methods.tagclip.decoder import Decoder, MaskLogits
from ovseg_demo.methods.tagclip.windows import ImageEmbeddings
from ovseg_demo.weights.loading import load_strict
from tests.helpers.oracle import drawn, fixture, sampled
from tests.helpers.tagclip_models import SIZES, WIDTH, published, units

REFERENCE = fixture("tagclip_parity.json")["decoder"]
CLASSES = 5


@pytest.fixture(params=list(SIZES))
def model(request) -> str:
    return request.param


@pytest.fixture
def decoder(model) -> Decoder:
    made = Decoder(SIZES[model])
    load_strict(made, split_checkpoint(published(model)).decoder, "tiny")
    return made.eval().requires_grad_(False)


def encoded(height: int = 4, width: int = 4) -> ImageEmbeddings:
    return ImageEmbeddings(units("patches", (2, WIDTH, height, width)), units("images", (2, WIDTH)))


def texts() -> Tensor:
    return units("texts", (CLASSES, WIDTH))


def queries(logits: MaskLogits) -> Tensor:
    """Of the classes and, last, of the trusty token."""
    return logits.classes if logits.trusty is None else torch.cat([logits.classes, logits.trusty[:, None]], 1)


def test_every_step_is_that_of_the_reference(decoder, model):
    steps = {"described": decoder.descriptor, "layer0": decoder.layers[0], "layer1": decoder.layers[1]}
    steps |= {"learned": decoder.learner} if decoder.learner else {}
    found = {}
    for name, module in steps.items():
        module.register_forward_hook(lambda _, __, output, name=name: found.update({name: output}))
    masks = queries(decoder(encoded(), texts())).flatten(2)
    wanted = dict(REFERENCE[model])
    torch.testing.assert_close(masks, torch.tensor(wanted.pop("masks")), atol=1e-5, rtol=0)
    assert found.keys() == wanted.keys()
    for name, numbers in wanted.items():
        torch.testing.assert_close(sampled(found[name].contiguous()), torch.tensor(numbers), atol=1e-5, rtol=0)


def test_patches_need_be_no_square(decoder, model):
    logits = decoder(encoded(3, 7), texts())
    assert logits.classes.shape == (2, CLASSES, 3, 7)
    assert (logits.trusty is None) == (model != "tagclip")
    if logits.trusty is not None:
        assert logits.trusty.shape == (2, 3, 7)


def test_the_order_of_classes_does_not_matter(decoder):
    order = torch.tensor([2, 0, 4, 1, 3])
    here, there = decoder(encoded(), texts()), decoder(encoded(), texts()[order])
    assert (there.classes - here.classes).abs().max() > 1e-3
    torch.testing.assert_close(there.classes, here.classes[:, order], atol=1e-5, rtol=0)
    if here.trusty is not None:
        torch.testing.assert_close(there.trusty, here.trusty, atol=1e-5, rtol=0)


def test_classes_meet_in_the_trusty_learner_alone(decoder, model):
    all_, fewer = (queries(decoder(encoded(), texts()[:count]))[:, :2] for count in (CLASSES, 2))
    apart = (all_ - fewer).abs().max()
    assert apart < 1e-5 if model == "zegclip" else apart > 1e-3


def test_images_of_a_batch_do_not_meet(decoder):
    both = encoded()
    alone = decoder(ImageEmbeddings(both.patches[1:], both.images[1:]), texts())
    torch.testing.assert_close(queries(decoder(both, texts()))[1:], queries(alone), atol=1e-5, rtol=0)


def test_logits_read_patches_and_image(decoder):
    given = encoded()
    before = queries(decoder(given, texts()))
    for other in (
        ImageEmbeddings(units("other patches", given.patches.shape), given.images),
        ImageEmbeddings(given.patches, units("other images", given.images.shape)),
    ):
        assert (queries(decoder(other, texts())) - before).abs().max() > 1e-3


def test_everything_learns(model):
    decoder = Decoder(SIZES[model])
    queries(decoder(encoded(), texts())).square().sum().backward()
    idle = {name for name, value in decoder.named_parameters() if value.grad is None or not value.grad.any()}
    assert idle == {f"layers.{i}.key.bias" for i in (0, 1)} & idle  # a softmax takes them away but for rounding


def test_dropout_acts_in_training_only(decoder):
    decoder.train()
    assert not torch.equal(*(queries(decoder(encoded(), texts())) for _ in range(2)))
    decoder.eval()
    assert torch.equal(*(queries(decoder(encoded(), texts())) for _ in range(2)))


def test_fresh_weights(model):
    """Xavier's for matrices, the trusty token among them; torch's own for biases, but zeros around self-attention."""
    state = Decoder(SIZES[model]).state_dict()
    for name, value in state.items():
        if value.ndim == 2:
            bound = (6 / sum(value.shape)) ** 0.5
            assert 0.8 * bound < value.abs().max() <= bound, name
        elif "norm" in name:
            assert torch.equal(value, torch.full_like(value, name.endswith("weight"))), name
        else:
            assert value.any() != name.startswith("learner"), name


def test_masks_are_the_mean_of_all_heads(decoder, model):
    """The mean of the heads' logits, each scaled by the root of its width, from what the last layer is given."""
    heads = SIZES[model].heads
    queries, patches = drawn("asked", (2, 3, WIDTH)), drawn("seen", (2, 7, WIDTH))
    q, k = (
        layer(x).unflatten(2, (heads, -1))
        for layer, x in ((decoder.masks.query, queries), (decoder.masks.key, patches))
    )
    wanted = torch.einsum("bchd,bthd->bhct", q, k).div((WIDTH // heads) ** 0.5).mean(1)
    torch.testing.assert_close(decoder.masks(queries, patches), wanted, atol=1e-5, rtol=0)
