"""MROVSeg as its paper reads, on open_clip's own layers: what the benchmark compares with, and a check of the results.

One view is read after the other, maps are enlarged before they pass through a layer, every map of attention masks is a
tensor of its own, and the scores of all classes are made at the full size of the photo.
"""

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.methods.mrovseg.fusion import MultiResolutionFusion
from ovseg_demo.methods.mrovseg.model import MROVSeg
from ovseg_demo.models.clip.positions import resize_positions

Maps = dict[int, Tensor]
"""Maps (1, D, h, w) by layer."""


class PlainMROVSeg:
    """The published design with its default settings, for one photo of two by two slices.

    Args:
        visual: CLIP's image tower with its weights.
        model: a MROVSeg of default settings on another copy of this tower, of which the trained layers are used.
    """

    def __init__(self, visual: VisionTransformer, model: MROVSeg) -> None:
        self._visual, self._model, self._settings = visual.eval(), model.eval(), model.settings
        self._adapter = [_stock_block(block, self._settings.adapter_heads) for block in model.adapter.blocks]

    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """Mask logits (Q, h, w) and class embeddings (Q, D) of normalised, padded pixels (1, 3, H, W)."""
        height, width = (length // 2 for length in pixels.shape[2:])
        views = [F.interpolate(pixels, (height, width), mode="bilinear", align_corners=False)]
        for top in (0, height):
            views += [pixels[..., top : top + height, left : left + width] for left in (0, width)]
        read = [self._read(view) for view in views]
        low, class_token = read[0]
        slices = [maps for maps, _ in read[1:]]
        high = {
            layer: torch.cat([torch.cat([slices[row + column][layer] for column in (0, 1)], 3) for row in (0, 2)], 2)
            for layer in low
        }
        return self._decode(low, high, class_token)

    def _read(self, view: Tensor) -> tuple[Maps, Tensor]:
        """The maps of all layers, and the class token (1, D) after the layer `split`, of a view (1, 3, h, w)."""
        visual = self._visual
        patches = visual.conv1(view)
        grid = (patches.shape[2], patches.shape[3])
        tokens = torch.cat([visual.class_embedding.expand(1, 1, -1), patches.flatten(2).mT], 1)
        tokens = visual.ln_pre(tokens + resize_positions(visual.positional_embedding, grid, "bicubic"))
        maps, class_token = {0: _as_map(tokens[:, 1:], grid)}, tokens[:, 0]
        for layer, block in enumerate(visual.transformer.resblocks, 1):
            tokens = block(tokens)
            maps[layer] = _as_map(tokens[:, 1:], grid)
            if layer == self._settings.split:
                class_token = tokens[:, 0]
        return maps, class_token

    def _decode(self, low: Maps, high: Maps, class_token: Tensor) -> tuple[Tensor, Tensor]:
        settings, model = self._settings, self._model
        fused = {layer: self._fuse(layer, high[layer], low[layer]) for layer in settings.fusion_layers}
        queries, adapted = self._adapt(high[0], fused)
        shallow, middle, deep = (fused[layer] for layer in settings.pyramid_layers)
        joined = adapted
        for up, skip in ((model.hier.up1, deep), (model.hier.up2, middle)):
            doubled = up.conv(torch.cat([joined, _resized(skip, joined.shape[2:])], 1))
            joined = _as_map(F.gelu(up.norm(_as_tokens(doubled))), doubled.shape[2:])
        finest = torch.cat([joined, _resized(shallow, joined.shape[2:])], 1)
        embedded = model.mlp_q(queries)
        masks = (embedded @ model.mlp_pix(_as_tokens(finest)).mT).unflatten(2, finest.shape[2:])
        pooled = F.max_pool2d(adapted, 2)
        biases = [self._bias("global", embedded, pooled), self._bias("local", embedded, adapted)]
        return masks[0], self._recognise(low, high, class_token, torch.cat(biases, 2))

    def _fuse(self, layer: int, high: Tensor, low: Tensor) -> Tensor:
        """Equation 2, (1, D, H', W')."""
        module, size = cast(MultiResolutionFusion, self._model.mrf[str(layer)]), high.shape[2:]
        of_high, of_low = module.proj(_as_tokens(high)), module.proj(_as_tokens(low))
        attention = _as_map(module.att(of_low).sigmoid(), low.shape[2:])
        mixed = module.dw(_as_map(module.norm(of_high), size))
        mixed = _as_map(module.pw(_as_tokens(mixed)), size)
        return _resized(attention, size) * mixed + _resized((1 - attention) * _as_map(of_low, low.shape[2:]), size)

    def _adapt(self, stem: Tensor, fused: Maps) -> tuple[Tensor, Tensor]:
        """Queries (1, Q, D) and map (1, D, H', W') after the last block of the adapter."""
        adapter, size, count = self._model.adapter, stem.shape[2:], self._settings.queries
        assert adapter.pos_embed is not None
        side = round(adapter.pos_embed.shape[1] ** 0.5)
        trained = adapter.pos_embed.mT.unflatten(2, (side, side))
        of_map = F.interpolate(trained, size, mode="bicubic", align_corners=False).flatten(2).mT
        positions = torch.cat([adapter.query_pos, of_map], 1)
        tokens = torch.cat([adapter.query_embed, adapter.proj(_as_tokens(stem))], 1)
        points = dict(zip(self._settings.fusion_points, fused.values(), strict=True))
        for number in range(len(self._adapter) + 1):
            tokens = self._adapter[number - 1](tokens) if number else tokens + positions
            if number in points:
                tokens = torch.cat([tokens[:, :count], tokens[:, count:] + _as_tokens(points[number])], 1)
            if 0 < number < len(self._adapter):
                tokens = tokens + positions
        return tokens[:, :count], _as_map(tokens[:, count:], size)

    def _bias(self, kind: str, embedded: Tensor, maps: Tensor) -> Tensor:
        """Equation 7, an attention mask for each head, (heads, Q, h * w)."""
        keys = getattr(self._model, f"mlp_{kind}")(_as_tokens(maps))[0]
        by_head = keys.split(embedded.shape[2], 1)
        affine = getattr(self._model, f"bias_{kind}")
        return torch.stack([affine((embedded[0] @ of_head.T)[..., None])[..., 0] for of_head in by_head])

    def _recognise(self, low: Maps, high: Maps, class_token: Tensor, biases: Tensor) -> Tensor:
        """Equation 8: class embeddings (Q, D)."""
        tokens = class_token[:, None] + self._model.prop_pos
        blocks = cast(list[ResidualAttentionBlock], list(self._visual.transformer.resblocks))
        for layer in range(self._settings.split, len(blocks)):
            block = blocks[layer]
            keys = block.ln_1(torch.cat([_as_tokens(low[layer]), _as_tokens(high[layer])], 1))
            tokens = tokens + block.attn(block.ln_1(tokens), keys, keys, need_weights=False, attn_mask=biases)[0]
            tokens = tokens + block.mlp(block.ln_2(tokens))
        return F.normalize(self._visual.ln_post(tokens) @ self._visual.proj, dim=-1)[0]


def plain_scores(
    masks: Tensor, probabilities: Tensor, padded: tuple[int, int], read: tuple[int, int], size: tuple[int, int]
) -> Tensor:
    """The scores of all classes at every pixel, (C, *size), as SAN makes them.

    Args:
        masks: logits (Q, h, w) over the padded photo.
        probabilities: of the classes, (Q, C).
        padded, read, size: (H, W) of the padded photo, the photo as it was read, and the result, in pixels.
    """
    enlarged = F.interpolate(masks[None], padded, mode="bilinear", align_corners=False)[..., : read[0], : read[1]]
    resized = F.interpolate(enlarged, size, mode="bilinear", align_corners=False)[0].sigmoid()
    return torch.einsum("qc,qhw->chw", probabilities, resized)


def _stock_block(block: nn.Module, heads: int) -> ResidualAttentionBlock:
    """open_clip's own block with the weights of one of the adapter's blocks."""
    state: Mapping[str, Tensor] = block.state_dict()
    made = ResidualAttentionBlock(len(state["ln_1.weight"]), heads)
    made.load_state_dict(state)
    made.ln_1.eps = made.ln_2.eps = 1e-6
    return made.eval()


def _as_map(tokens: Tensor, grid: Sequence[int]) -> Tensor:
    return tokens.mT.unflatten(2, tuple(grid))


def _as_tokens(maps: Tensor) -> Tensor:
    return maps.flatten(2).mT


def _resized(maps: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(maps, tuple(size), mode="bilinear", align_corners=False)
