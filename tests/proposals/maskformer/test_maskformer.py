import json

import pytest
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from ovseg_demo.proposals.maskformer.decoder import sine_position
from ovseg_demo.proposals.maskformer.model import build_maskformer, fuse_maskformer
from tests.helpers.maskformer_models import IMAGE, drawn, small
from tests.helpers.oracle import sampled
from tests.helpers.paths import FIXTURES

REFERENCE = json.loads((FIXTURES / "maskformer.json").read_text())
BOTH = pytest.mark.parametrize("backbone", ["r101c", "swinb"])


def assert_as_published(tensor: Tensor, backbone: str, stage: str) -> None:
    wanted = REFERENCE[backbone][stage]
    assert list(tensor.shape) == wanted["shape"]
    torch.testing.assert_close(sampled(tensor), torch.tensor(wanted["values"]), atol=1e-4, rtol=0)


@BOTH
@torch.inference_mode()
def test_every_stage_gives_the_numbers_of_the_reference(backbone):
    model = small(backbone)
    image = drawn("image", IMAGE)
    maps = model.backbone(image)
    for i, found in enumerate(maps, 2):
        assert_as_published(found, backbone, f"res{i}")
    assert_as_published(model.sem_seg_head["pixel_decoder"](maps), backbone, "mask_features")
    predictions = model(image)
    assert len(predictions) == 2
    for i, found in enumerate(predictions):
        assert_as_published(found.class_embeddings, backbone, f"classes{i}")
        assert_as_published(found.mask_logits, backbone, f"masks{i}")


@BOTH
@torch.inference_mode()
def test_inference_may_leave_out_all_layers_but_the_last(backbone):
    model, image = small(backbone), drawn("image", IMAGE)
    (only,) = model(image, every_layer=False)
    last = model(image)[-1]
    assert torch.equal(only.mask_logits, last.mask_logits)
    assert torch.equal(only.class_embeddings, last.class_embeddings)


@BOTH
@torch.inference_mode()
def test_fusing_keeps_the_function(backbone):
    model, image = small(backbone), drawn("image", IMAGE)
    before = model(image)[-1]
    names = model.state_dict().keys()
    fuse_maskformer(model)
    after = model(image.contiguous(memory_format=torch.channels_last))[-1]
    assert model.state_dict().keys() != names
    torch.testing.assert_close(after.mask_logits, before.mask_logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(after.class_embeddings, before.class_embeddings, atol=1e-5, rtol=0)


@BOTH
@torch.inference_mode()
def test_images_of_a_batch_do_not_mix(backbone):
    model, images = small(backbone), drawn("image", IMAGE)
    together = model(images)[-1].mask_logits
    alone = torch.cat([model(image[None])[-1].mask_logits for image in images])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


@BOTH
@pytest.mark.parametrize("size", [(32, 32), (32, 224), (160, 64)])
@torch.inference_mode()
def test_any_multiple_of_32_will_do(backbone, size):
    found = small(backbone)(drawn("odd", (1, 3, *size)), every_layer=False)[0]
    assert found.mask_logits.shape == (1, 5, size[0] // 4, size[1] // 4)
    assert found.mask_logits.isfinite().all()


@BOTH
def test_all_parameters_learn_even_after_inference_at_the_same_size(backbone):
    model, images = small(backbone), drawn("image", IMAGE)
    with torch.inference_mode():
        model(images)
    sum(p.class_embeddings.square().mean() + p.mask_logits.square().mean() for p in model(images)).backward()
    still = {name for name, p in model.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert still == set()


def test_batch_norms_are_frozen():
    model = small("r101c")
    trained = {name for name, _ in model.backbone.named_parameters()}
    assert all(name.endswith(("conv1.weight", "conv2.weight", "conv3.weight", "shortcut.weight")) for name in trained)
    before = model.backbone.stem.conv1.norm.running_mean.clone()
    model.train()(drawn("image", IMAGE))
    assert torch.equal(model.backbone.stem.conv1.norm.running_mean, before)


@BOTH
def test_training_drops_at_random_and_inference_does_not(backbone):
    model, image = small(backbone), drawn("image", IMAGE)
    with torch.inference_mode():
        assert torch.equal(model(image)[-1].mask_logits, model(image)[-1].mask_logits)
        model.train()
        assert not torch.equal(model(image)[-1].mask_logits, model(image)[-1].mask_logits)


@BOTH
def test_released_sizes(backbone):
    with torch.device("meta"):
        model = build_maskformer(backbone, 512)
        predictions = model(torch.empty(1, 3, 64, 96))
    assert [p.class_embeddings.shape for p in predictions] == [(1, 100, 512)] * 6
    assert [p.mask_logits.shape for p in predictions] == [(1, 100, 16, 24)] * 6
    assert {m.p for m in model.sem_seg_head.modules() if isinstance(m, nn.Dropout)} == {0.1}


def test_released_dilation_and_stochastic_depth():
    with torch.device("meta"):
        resnet, swin = build_maskformer("r101c", 512).backbone, build_maskformer("swinb", 768).backbone
    assert [block.conv2.dilation for block in resnet.res5] == [(1, 1), (2, 2), (4, 4)]
    assert [block.conv2.stride for block in resnet.res5] == [(2, 2), (1, 1), (1, 1)]
    rates = [m.drop_prob for m in swin.modules() if isinstance(m, DropPath)]
    assert rates == pytest.approx(torch.linspace(0, 0.3, 24).tolist())
    shifts = [block.attn.shift for block in swin.layers[2].blocks]
    assert shifts == [0, 6] * 9


def test_positions_are_rows_then_columns():
    position = sine_position(32, 3, 5)
    assert position.shape == (32, 3, 5)
    assert torch.equal(position[:16], position[:16, :, :1].expand(-1, -1, 5))
    assert torch.equal(position[16:], position[16:, :1].expand(-1, 3, -1))
    assert position[0, 0, 0] == pytest.approx(0.8660, abs=1e-4)  # sin(2 pi / 3): the first of three rows
    assert position[17, 0, 4] == pytest.approx(1.0, abs=1e-4)  # cos(2 pi): the last column
