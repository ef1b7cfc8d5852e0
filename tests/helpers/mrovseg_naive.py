"""MROVSeg once more, slowly: what the paper says and what it leaves to SAN, of parameters by their names alone.

Views, heads, queries and places are visited one by one. Nothing here is shared with `ovseg_demo.methods.mrovseg` but
the names of parameters and settings. Maps are (D, h, w) and tokens (L, D), of a single photo.
"""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.methods.mrovseg.settings import MROVSegSettings

State = Mapping[str, Tensor]


# Slices ---------------------------------------------------------------------------------------------------------------


def bilinear(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (D, h, w) at another size: pixels are areas, and their centres are interpolated."""
    for axis, wanted in ((1, size[0]), (2, size[1])):
        length = maps.shape[axis]
        resized = []
        for place in range(wanted):
            centre = min(max((place + 0.5) * length / wanted - 0.5, 0.0), length - 1.0)
            first = min(int(centre), length - 1)
            second = min(first + 1, length - 1)
            share = centre - first
            resized.append((1 - share) * maps.select(axis, first) + share * maps.select(axis, second))
        maps = torch.stack(resized, axis)
    return maps


def shrunk(maps: Tensor, size: tuple[int, int], summary: Callable[[Tensor], Tensor]) -> Tensor:
    """Maps (D, H, W) at a smaller size: each place sums up, by `summary`, the places that it overlaps."""
    (height, width), found = maps.shape[1:], maps.new_zeros(len(maps), *size)
    for row in range(size[0]):
        for column in range(size[1]):
            rows = overlapped(row, height / size[0], height)
            columns = overlapped(column, width / size[1], width)
            found[:, row, column] = summary(maps[:, rows][:, :, columns])
    return found


def overlapped(place: int, step: float, length: int) -> list[int]:
    """Those of `length` unit intervals that share more than a point with the interval of a place, `step` long."""
    return [each for each in range(length) if each < (place + 1) * step and each + 1 > place * step]


def window_side(length: int, ratio: float, patch: int) -> int:
    """Pixels of a slice along one axis: the least whole patches that are not below the ratio's share."""
    return next(side for side in range(0, length + 1, patch) if side + 1e-6 >= ratio * length)


def corners(size: tuple[int, int], window: tuple[int, int]) -> list[tuple[int, int]]:
    """The top left pixels of two by two windows at the corners of the photo; of one that is as large as the photo."""
    found = []
    for top in (0, size[0] - window[0]):
        for left in (0, size[1] - window[1]):
            if (top, left) not in found:
                found.append((top, left))
    return found


def cut(pixels: Tensor, window: tuple[int, int]) -> list[Tensor]:
    """The slices of pixels (3, H, W)."""
    size = (pixels.shape[1], pixels.shape[2])
    return [pixels[:, top : top + window[0], left : left + window[1]] for top, left in corners(size, window)]


def tile(maps: list[Tensor], size: tuple[int, int], window: tuple[int, int], patch: int) -> Tensor:
    """One map (D, H, W) of the maps of slices: at each place the mean over the slices that see it."""
    whole = maps[0].new_zeros(len(maps[0]), size[0] // patch, size[1] // patch)
    for row in range(whole.shape[1]):
        for column in range(whole.shape[2]):
            seen = []
            for (top, left), of_slice in zip(corners(size, window), maps, strict=True):
                inner_row, inner_column = row - top // patch, column - left // patch
                if 0 <= inner_row < of_slice.shape[1] and 0 <= inner_column < of_slice.shape[2]:
                    seen.append(of_slice[:, inner_row, inner_column])
            whole[:, row, column] = sum(seen) / len(seen)
    return whole


# Layers ---------------------------------------------------------------------------------------------------------------


def linear(state: State, name: str, x: Tensor) -> Tensor:
    """A linear layer, or a 1 x 1 convolution of tokens."""
    return x @ state[f"{name}.weight"].flatten(1).T + state[f"{name}.bias"]


def layer_norm(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return (
        centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * state[f"{name}.weight"]
        + state[f"{name}.bias"]
    )


def gelu(x: Tensor) -> Tensor:
    return x * (1 + torch.erf(x / 2**0.5)) / 2


def mlp(state: State, name: str, x: Tensor) -> Tensor:
    """Three layers with ReLU between them."""
    for layer in (0, 1):
        x = linear(state, f"{name}.layers.{layer}", x).clamp(min=0)
    return linear(state, f"{name}.layers.2", x)


def tokens_of(maps: Tensor) -> Tensor:
    """(h * w, D) in reading order."""
    return torch.stack([maps[:, row, column] for row in range(maps.shape[1]) for column in range(maps.shape[2])])


def map_of(tokens: Tensor, grid: tuple[int, int]) -> Tensor:
    return torch.stack([tokens[row * grid[1] : (row + 1) * grid[1]] for row in range(grid[0])]).permute(2, 0, 1)


def at_each_place(maps: Tensor, function) -> Tensor:
    """What a function makes of the channels of each place."""
    return map_of(function(tokens_of(maps)), (maps.shape[1], maps.shape[2]))


def attend(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """One head: queries (Q, d) gather values (L, d); the bias (Q, L) is added to the scaled logits."""
    gathered = []
    for index, query in enumerate(queries):
        logits = keys @ query / queries.shape[1] ** 0.5
        if bias is not None:
            logits = logits + bias[index]
        gathered.append(logits.softmax(0) @ values)
    return torch.stack(gathered)


def heads_of(x: Tensor, heads: int) -> list[Tensor]:
    width = x.shape[1] // heads
    return [x[:, head * width : (head + 1) * width] for head in range(heads)]


def self_attention(queries: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """All heads side by side."""
    each = zip(heads_of(queries, heads), heads_of(keys, heads), heads_of(values, heads), strict=True)
    return torch.cat([attend(*of_head) for of_head in each], 1)


# CLIP -----------------------------------------------------------------------------------------------------------------


def clip_start(state: State, pixels: Tensor, patch: int) -> tuple[Tensor, tuple[int, int]]:
    """Tokens before the first block, the class token first, and the grid of a view (3, h, w)."""
    kernel = state["clip_visual.conv1.weight"].flatten(1)
    grid = (pixels.shape[1] // patch, pixels.shape[2] // patch)
    tokens = [state["clip_visual.class_embedding"]]
    for row in range(grid[0]):
        for column in range(grid[1]):
            area = pixels[:, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
            tokens.append(kernel @ area.flatten())
    positions = state["clip_visual.positional_embedding"]
    moved = torch.cat([positions[:1], resized_positions(positions[1:], grid)])
    return layer_norm(state, "clip_visual.ln_pre", torch.stack(tokens) + moved, 1e-5), grid


def resized_positions(positions: Tensor, grid: tuple[int, int]) -> Tensor:
    """Positions (s * s, D) of a square grid, bicubic at another one, (h * w, D)."""
    side = round(len(positions) ** 0.5)
    if grid == (side, side):
        return positions
    return tokens_of(F.interpolate(map_of(positions, (side, side))[None], grid, mode="bicubic")[0])


def clip_parts(state: State, block: int, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values of tokens (L, D), which the block normalises."""
    name = f"clip_visual.transformer.resblocks.{block}"
    normalised = layer_norm(state, f"{name}.ln_1", x, 1e-5)
    width = x.shape[1]
    weight, bias = state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
    q, k, v = (
        normalised @ weight[part * width : (part + 1) * width].T + bias[part * width : (part + 1) * width]
        for part in range(3)
    )
    return q, k, v


def clip_rest(state: State, block: int, x: Tensor, gathered: Tensor) -> Tensor:
    """A block after its heads: output projection and MLP with QuickGELU."""
    name = f"clip_visual.transformer.resblocks.{block}"
    x = x + linear(state, f"{name}.attn.out_proj", gathered)
    hidden = linear(state, f"{name}.mlp.c_fc", layer_norm(state, f"{name}.ln_2", x, 1e-5))
    return x + linear(state, f"{name}.mlp.c_proj", hidden * torch.sigmoid(1.702 * hidden))


def clip_block(state: State, block: int, x: Tensor, heads: int) -> Tensor:
    return clip_rest(state, block, x, self_attention(*clip_parts(state, block, x), heads))


def clip_end(state: State, x: Tensor) -> Tensor:
    """Unit embeddings of class tokens."""
    embeddings = layer_norm(state, "clip_visual.ln_post", x, 1e-5) @ state["clip_visual.proj"]
    return embeddings / embeddings.norm(dim=1, keepdim=True)


# Adapter and fusion ---------------------------------------------------------------------------------------------------


def adapter_block(state: State, block: int, x: Tensor, heads: int) -> Tensor:
    """A plain vision transformer's block: norms with an epsilon of 1e-6, and GELU."""
    name = f"adapter.blocks.{block}"
    weight, bias = state[f"{name}.attn.in_proj_weight"], state[f"{name}.attn.in_proj_bias"]
    q, k, v = (layer_norm(state, f"{name}.ln_1", x, 1e-6) @ weight.T + bias).chunk(3, 1)
    x = x + linear(state, f"{name}.attn.out_proj", self_attention(q, k, v, heads))
    hidden = gelu(linear(state, f"{name}.mlp.c_fc", layer_norm(state, f"{name}.ln_2", x, 1e-6)))
    return x + linear(state, f"{name}.mlp.c_proj", hidden)


def depthwise(state: State, name: str, maps: Tensor) -> Tensor:
    """A convolution of each channel of its own, with zeros around the map."""
    kernel, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    height, width = maps.shape[1:]
    reach = kernel.shape[-1] // 2
    framed = maps.new_zeros(len(maps), height + 2 * reach, width + 2 * reach)
    framed[:, reach : reach + height, reach : reach + width] = maps
    found = bias[:, None, None].repeat(1, height, width)
    for i in range(kernel.shape[-1]):
        for j in range(kernel.shape[-1]):
            found += kernel[:, 0, i, j, None, None] * framed[:, i : i + height, j : j + width]
    return found


def fuse(state: State, layer: int, high: Tensor, low: Tensor, settings: MROVSegSettings) -> tuple[Tensor, Tensor]:
    """Equation 2, and its scale attention at the low resolution."""
    name = f"mrf.{layer}"
    if f"{name}.proj.weight" in state:
        high, low = (at_each_place(each, lambda x: linear(state, f"{name}.proj", x)) for each in (high, low))
    if settings.fusion_norm == "both":
        low = at_each_place(low, lambda x: layer_norm(state, f"{name}.low_norm", x, NORM_EPS))
    source = low
    if settings.attention_source == "high":
        source = shrunk(high, (low.shape[1], low.shape[2]), lambda areas: areas.mean((1, 2)))
    normed = high
    if settings.fusion_norm != "none":
        normed = at_each_place(high, lambda x: layer_norm(state, f"{name}.norm", x, NORM_EPS))
    mixed = at_each_place(depthwise(state, f"{name}.dw", normed), lambda x: linear(state, f"{name}.pw", x))

    def predict(x: Tensor) -> Tensor:
        hidden = layer_norm(state, f"{name}.att.1", linear(state, f"{name}.att.0", x), NORM_EPS)
        return torch.sigmoid(linear(state, f"{name}.att.3", gelu(hidden)))

    attention = at_each_place(source, predict)
    size = (high.shape[1], high.shape[2])
    return bilinear(attention, size) * mixed + bilinear((1 - attention) * low, size), attention


NORM_EPS = 1e-5
"""Of the norms that are not timm's blocks'."""


# Masks and attention masks --------------------------------------------------------------------------------------------


def doubled(state: State, name: str, maps: Tensor) -> Tensor:
    """A transposed convolution, kernel 2 and stride 2: every place becomes four."""
    kernel, bias = state[f"{name}.weight"], state[f"{name}.bias"]
    found = maps.new_zeros(kernel.shape[1], 2 * maps.shape[1], 2 * maps.shape[2])
    for row in range(found.shape[1]):
        for column in range(found.shape[2]):
            found[:, row, column] = maps[:, row // 2, column // 2] @ kernel[:, :, row % 2, column % 2] + bias
    return found


def biases(state: State, branch: str, embedded: Tensor, maps: Tensor) -> list[Tensor]:
    """The attention masks of each head of a branch, (Q, h * w) each: equations 6 and 7, of queries after mlp_q.

    Sets for several recognition blocks follow each other.
    """
    predicted = mlp(state, f"mlp_{branch}", tokens_of(maps))
    width, found = embedded.shape[1], []
    for head in range(predicted.shape[1] // width):
        of_head = predicted[:, head * width : (head + 1) * width]
        logits = torch.stack([of_head @ query for query in embedded])
        found.append(logits * state[f"bias_{branch}.weight"].reshape(()) + state[f"bias_{branch}.bias"].reshape(()))
    return found


# Recognition ----------------------------------------------------------------------------------------------------------


def read_patches(
    state: State, block: int, x: Tensor, patches: Tensor, masks: list[Tensor] | None, heads: int, self_key: bool
) -> Tensor:
    """Equation 8 for one block: class tokens (Q, D) gather from patches (L, D) of both resolutions."""
    queries, own_keys, own_values = (heads_of(each, heads) for each in clip_parts(state, block, x))
    _, keys, values = (heads_of(each, heads) for each in clip_parts(state, block, patches))
    gathered = torch.zeros_like(x)
    for index in range(len(x)):
        of_heads = []
        for head in range(heads):
            seen_keys, seen_values = keys[head], values[head]
            bias = x.new_zeros(len(patches)) if masks is None else masks[head][index]
            if self_key:
                seen_keys = torch.cat([seen_keys, own_keys[head][index : index + 1]])
                seen_values = torch.cat([seen_values, own_values[head][index : index + 1]])
                bias = torch.cat([bias, bias.new_zeros(1)])
            of_heads.append(attend(queries[head][index : index + 1], seen_keys, seen_values, bias[None])[0])
        gathered[index] = torch.cat(of_heads)
    return clip_rest(state, block, x, gathered)


def class_logits(embeddings: Tensor, texts: Tensor, void: Tensor, scale: float) -> Tensor:
    """Scaled cosines of queries (Q, D) with texts (C, D) and, last, with the void embedding, (Q, C + 1)."""
    rows = []
    for embedding in embeddings:
        cosines = [F.cosine_similarity(embedding, word, dim=0) for word in (*texts, void.flatten())]
        rows.append(scale * torch.stack(cosines))
    return torch.stack(rows)
