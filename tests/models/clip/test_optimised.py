"""Blocks for inference equal open_clip's, in float32 exactly and in bfloat16 nearly."""

import pytest
import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import nn
from torch.nn import functional as F

from ovseg_demo.models.clip.mask_prompts import MaskPromptedTower
from ovseg_demo.models.clip.optimised import (
    OptimisedBlock,
    native_precision,
    optimise,
)


@pytest.fixture(params=[QuickGELU, nn.GELU])
def block(request) -> ResidualAttentionBlock:
    torch.manual_seed(0)
    made = ResidualAttentionBlock(64, 2, act_layer=request.param).eval()
    for name, value in made.named_parameters():
        nn.init.normal_(value, std=0.2) if name.endswith("weight") and value.ndim > 1 else nn.init.normal_(value)
    return made


@torch.inference_mode()
def test_a_block_in_float32_is_the_same_function(block):
    x, mask = torch.randn(2, 7, 64), torch.full((7, 7), -torch.inf).triu(1)
    lean = OptimisedBlock(block, "float32")
    torch.testing.assert_close(lean(x), block(x), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lean(x, attn_mask=mask), block(x, attn_mask=mask), atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(lean(x, queries=2), block(x)[:, :2], atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_a_block_in_bfloat16_is_nearly_the_same_and_adds_up_in_float32(block):
    x = torch.randn(2, 7, 64)
    lean = OptimisedBlock(block, "bfloat16")
    added, expected = lean(x) - x, block(x) - x
    assert lean(x).dtype == torch.float32
    assert lean.fc1.linear.weight.dtype == torch.bfloat16
    error = (added - expected).norm() / expected.norm()
    assert 1e-5 < error < 0.02
    torch.testing.assert_close(lean(x, queries=1), lean(x)[:, :1], atol=0.05, rtol=0.05)


def test_a_block_has_the_activation_of_its_original():
    """The two are 0.02 apart at most; a mix-up costs accuracy and raises nothing."""
    x = torch.linspace(-3, 3, 13)
    assert (QuickGELU()(x) - F.gelu(x)).abs().max() > 0.015
    block = ResidualAttentionBlock(8, 1, act_layer=QuickGELU).eval()
    nn.init.zeros_(block.attn.out_proj.weight)
    with torch.inference_mode():
        states = torch.randn(1, 100, 8)
        torch.testing.assert_close(OptimisedBlock(block, "float32")(states), block(states), atol=1e-5, rtol=0)


def test_a_tower_is_rebuilt_in_place():
    from open_clip.transformer import VisionTransformer

    torch.manual_seed(0)
    visual = VisionTransformer(image_size=16, patch_size=8, width=64, layers=3, heads=1, mlp_ratio=4, output_dim=8)
    plain = MaskPromptedTower(visual.eval())
    crops = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        expected = visual(crops)
        torch.testing.assert_close(plain(crops), expected, atol=1e-5, rtol=1e-5)
        assert optimise(plain, "float32") is plain
        torch.testing.assert_close(plain(crops), expected, atol=1e-5, rtol=1e-5)
    assert all(isinstance(block, OptimisedBlock) for block in plain.transformer.resblocks)


def test_blocks_keep_no_weight_of_the_original_alive():
    blocks = nn.ModuleList([ResidualAttentionBlock(8, 1)])
    original = blocks[0].mlp.c_fc.weight
    optimise(blocks, "float32")
    assert all(value.data_ptr() != original.data_ptr() for value in blocks.parameters())
    assert not any(value.requires_grad for name, value in blocks.named_parameters() if "linear" in name)


@pytest.mark.parametrize(
    ("able", "precision"),
    [({"avx512_bf16": True}, "bfloat16"), ({"amx_bf16": True, "avx512_bf16": False}, "bfloat16"),
     ({"avx512_f": True, "avx2": True}, "float32"), ({"architecture": "aarch64"}, "float32")],
)  # fmt: skip
def test_bfloat16_is_chosen_where_the_instructions_are(monkeypatch, able, precision):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: able)
    assert native_precision(torch.device("cpu")) == precision


def test_bfloat16_is_chosen_on_gpus_that_have_it(monkeypatch):
    for native, precision in ((True, "bfloat16"), (False, "float32")):
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation, native=native: native)
        assert native_precision(torch.device("cuda")) == precision
    assert native_precision(torch.device("mps")) == "float32"
