"""The whole of MROVSeg once more, put together from the slow parts, for a single photo."""

from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg_demo.methods.mrovseg.settings import MROVSegSettings
from tests.helpers import mrovseg_naive as naive
from tests.helpers.mrovseg_naive import State


@dataclass
class Reading:
    """What CLIP says of a photo: maps (D, h, w) by layer, and class tokens by view, the global view's first."""

    low: dict[int, Tensor]
    high: dict[int, Tensor]
    class_tokens: list[Tensor]


@dataclass
class Answer:
    """Mask logits (Q, h, w), class embeddings (Q, D), and the mean scale attention (h', w') of each fusion layer."""

    masks: Tensor
    embeddings: Tensor
    attention: list[Tensor]


def read(state: State, settings: MROVSegSettings, pixels: Tensor, patch: int, heads: int) -> Reading:
    """Run every view of a padded photo (3, H, W) through all of CLIP's blocks, one view after the other."""
    size = (pixels.shape[1], pixels.shape[2])
    height, width = (naive.window_side(side, settings.slice_ratio, patch) for side in size)
    window = (height, width)
    views = [naive.bilinear(pixels, window)]
    if not settings.single_resolution:
        views += naive.cut(pixels, window)
    depth = sum(name.endswith("ln_1.weight") and name.startswith("clip_visual") for name in state)
    layers: list[dict[int, Tensor]] = []
    class_tokens = []
    for view in views:
        tokens, grid = naive.clip_start(state, view, patch)
        layers.append({0: naive.map_of(tokens[1:], grid)})
        for block in range(depth):
            if block == settings.split:
                class_tokens.append(tokens[0])
            tokens = naive.clip_block(state, block, tokens, heads)
            layers[-1][block + 1] = naive.map_of(tokens[1:], grid)
    low = layers[0]
    if settings.single_resolution:
        return Reading(low, low, class_tokens)
    high = {layer: naive.tile([each[layer] for each in layers[1:]], size, window, patch) for layer in low}
    return Reading(low, high, class_tokens)


def fused_maps(state: State, settings: MROVSegSettings, reading: Reading) -> tuple[dict[int, Tensor], list[Tensor]]:
    """The fused map of every fusion layer, and the means of their scale attention."""
    maps, attention = {}, []
    for layer in settings.fusion_layers:
        high, low = reading.high[layer], reading.low[layer]
        if settings.fusion and not settings.single_resolution:
            maps[layer], of_layer = naive.fuse(state, layer, high, low, settings)
            attention.append(of_layer.mean(0))
        else:
            maps[layer] = projected(state, f"mrf.{layer}.proj", high)
    return maps, attention


def projected(state: State, name: str, maps: Tensor) -> Tensor:
    """With the channels of the adapter, where CLIP's are others."""
    if f"{name}.weight" not in state:
        return maps
    return naive.at_each_place(maps, lambda x: naive.linear(state, name, x))


def adapt(
    state: State, settings: MROVSegSettings, stem: Tensor, fused: dict[int, Tensor]
) -> list[tuple[Tensor, Tensor]]:
    """Queries (Q, D) and map (D, H, W) after every adapter block.

    Args:
        fused: maps by the number of blocks after which they are added.
    """
    grid = (stem.shape[1], stem.shape[2])
    visual = naive.tokens_of(projected(state, "adapter.proj", stem))
    queries, query_positions = state["adapter.query_embed"][0], state["adapter.query_pos"][0]
    positions = torch.zeros_like(visual)
    if settings.adapter_positions != "none":
        positions = naive.resized_positions(state["adapter.pos_embed"][0], grid)
    queries, visual = queries + query_positions, visual + positions
    visual = visual + naive.tokens_of(fused[0]) if 0 in fused else visual
    states = []
    for block in range(settings.adapter_blocks):
        tokens = naive.adapter_block(state, block, torch.cat([queries, visual]), settings.adapter_heads)
        queries = tokens[: len(queries)]
        visual = tokens[len(queries) :] if settings.adapter else visual
        if block + 1 in fused:
            visual = visual + naive.tokens_of(fused[block + 1])
        states.append((queries, naive.map_of(visual, grid)))
        if settings.adapter_positions == "every block":
            queries = queries + query_positions
            visual = visual + positions if settings.adapter else visual
    return states


def pixel_embeddings(state: State, adapted: Tensor, pyramid: list[Tensor]) -> Tensor:
    """(E, 4 H, 4 W), of the adapter's map and the fused maps from the shallowest to the deepest (section 3.5)."""
    shallow, middle, deep = pyramid
    x = adapted
    for name, skip in (("up1", deep), ("up2", middle)):
        joined = torch.cat([x, naive.bilinear(skip, (x.shape[1], x.shape[2]))])
        x = naive.at_each_place(
            naive.doubled(state, f"hier.{name}.conv", joined),
            lambda t, name=name: naive.gelu(naive.layer_norm(state, f"hier.{name}.norm", t, naive.NORM_EPS)),
        )
    joined = torch.cat([x, naive.bilinear(shallow, (x.shape[1], x.shape[2]))])
    return naive.at_each_place(joined, lambda t: naive.mlp(state, "mlp_pix", t))


def recognise(
    state: State, settings: MROVSegSettings, reading: Reading, embedded: Tensor, adapted: Tensor, heads: int
) -> Tensor:
    """Class embeddings (Q, D) by masked attention in CLIP's last blocks (section 3.6)."""
    last = max(reading.low)
    start = reading.class_tokens[0]
    if settings.class_token == "mean":
        start = torch.stack(reading.class_tokens).mean(0)
    x = start + state["prop_pos"][0]
    size = (reading.low[0].shape[1], reading.low[0].shape[2])
    pooled = naive.shrunk(adapted, size, lambda areas: areas.amax((1, 2)))
    masks = naive.biases(state, "global", embedded, pooled)
    if not settings.single_resolution:
        local = naive.biases(state, "local", embedded, adapted)
        masks = [torch.cat(pair, 1) for pair in zip(masks, local, strict=True)]
    for step, block in enumerate(range(settings.split, last)):
        layer = block if settings.keys_advance else settings.split
        patches = naive.tokens_of(reading.low[layer])
        if not settings.single_resolution:
            patches = torch.cat([patches, naive.tokens_of(reading.high[layer])])
        own = masks[step * heads : (step + 1) * heads] if settings.biases_per_block else masks
        x = naive.read_patches(state, block, x, patches, own, heads, settings.self_key)
    return naive.clip_end(state, x)


def pooled_embeddings(state: State, masks: Tensor, patches: Tensor) -> Tensor:
    """Class embeddings (Q, D) without masked attention: the mean of patches (D, h, w) under each mask (Q, H, W)."""
    weights = torch.sigmoid(naive.bilinear(masks, (patches.shape[1], patches.shape[2])))
    means = [(patches * of_query).sum((1, 2)) / of_query.sum() for of_query in weights]
    return naive.clip_end(state, torch.stack(means))


def answer(state: State, settings: MROVSegSettings, pixels: Tensor, patch: int, heads: int) -> dict[int, Answer]:
    """What the model says of a padded photo (3, H, W), by adapter block, counted from 1."""
    reading = read(state, settings, pixels, patch, heads)
    fused, attention = fused_maps(state, settings, reading)
    points = dict(zip(settings.fusion_points, fused.values(), strict=True))
    pyramid = [fused[layer] for layer in settings.pyramid_layers]
    answers = {}
    for block, (queries, adapted) in enumerate(adapt(state, settings, reading.high[0], points), 1):
        if block not in (*settings.auxiliary_blocks, settings.adapter_blocks):
            continue
        embedded = naive.mlp(state, "mlp_q", queries)
        pixels_of_block = pixel_embeddings(state, adapted, pyramid)
        masks = torch.stack([(query[:, None, None] * pixels_of_block).sum(0) for query in embedded])
        if settings.masked_attention:
            embeddings = recognise(state, settings, reading, embedded, adapted, heads)
        else:
            embeddings = pooled_embeddings(state, masks, reading.high[max(reading.high)])
        answers[block] = Answer(masks, embeddings, attention)
    return answers
