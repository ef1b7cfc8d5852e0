"""MROVSeg (Zhu et al., arXiv 2408.14776): masks and class embeddings of queries, from one frozen CLIP at two sizes.

    features   the frozen half: CLIP reads the global view and the slices of a photo
    decode     the trained half: adapter, masks, attention masks, and the class tokens in CLIP's last blocks

Neither depends on the words, which are compared with the class embeddings afterwards.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from open_clip.transformer import VisionTransformer
from torch import Tensor, nn

from ovseg_demo.methods.mrovseg.adapter import INITIAL_STD, AdapterState, MultiResAdapter
from ovseg_demo.methods.mrovseg.classifier import class_logits
from ovseg_demo.methods.mrovseg.fusion import MultiResolutionFusion, SlicesAlone
from ovseg_demo.methods.mrovseg.mask_decoder import MLP, HierarchicalMaskDecoder, attention_biases, max_pool
from ovseg_demo.methods.mrovseg.recognition import pool_masks, recognise
from ovseg_demo.methods.mrovseg.settings import MROVSegSettings
from ovseg_demo.methods.mrovseg.slices import Slicing
from ovseg_demo.models.clip.blocks import TransformerBlock
from ovseg_demo.models.clip.image_tower import ImageTower


@dataclass(frozen=True)
class ClipFeatures:
    """What CLIP says of B photos, as decoding needs it.

    Attributes:
        low: maps of the global view by layer, (B, h', w', W).
        high: maps of the slices by layer, put together, (B, H', W', W); with a single resolution those of `low`.
        class_token: after the layer `split`, (B, W).
    """

    low: Mapping[int, Tensor]
    high: Mapping[int, Tensor]
    class_token: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.class_token.nbytes + sum(each.nbytes for maps in (self.low, self.high) for each in maps.values())


@dataclass(frozen=True)
class Prediction:
    """Masks and class embeddings of Q queries on B photos.

    Attributes:
        masks: logits (B, Q, h, w), with four values a side for each patch of the slices.
        embeddings: unit vectors (B, Q, D), in the space of the texts.
        scale_attention: the mean over the channels of each fusion module's scale attention, 0 (the global view is
            trusted) to 1 (the slices are), (B, F, h', w') of F fusion layers; F is 0 without fusion.
        auxiliary: of earlier adapter blocks, supervised in training; without a scale attention of their own.
    """

    masks: Tensor
    embeddings: Tensor
    scale_attention: Tensor
    auxiliary: tuple["Prediction", ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes in memory."""
        return self.masks.nbytes + self.embeddings.nbytes + self.scale_attention.nbytes


class MROVSeg(nn.Module):
    """MROVSeg.

    Args:
        visual: CLIP's image tower of `settings.architecture`; its transformer is used up. Its parameters need no
            gradients from here on, but for the position embeddings where the settings say so.
        settings: what the model is built by.
    """

    def __init__(self, visual: VisionTransformer, settings: MROVSegSettings) -> None:
        super().__init__()
        self.settings = settings
        self.clip_visual = ImageTower(visual, settings.position_rule).requires_grad_(False)
        self.clip_visual.positional_embedding.requires_grad_(not settings.freeze_positions)
        clip_width, width = self.clip_visual.conv1.out_channels, settings.adapter_width
        self._heads = cast(TransformerBlock, self.clip_visual.blocks[0]).attn.num_heads
        self._recognition_blocks = len(self.clip_visual.blocks) - settings.split
        self.adapter = MultiResAdapter(
            width,
            clip_width,
            blocks=settings.adapter_blocks,
            heads=settings.adapter_heads,
            queries=settings.queries,
            grid=self._trained_grid(),
            positions=settings.adapter_positions,
            adapt_map=settings.adapter,
        )
        self.mrf = nn.ModuleDict({str(layer): self._fusion(width, clip_width) for layer in settings.fusion_layers})
        self.hier = HierarchicalMaskDecoder(width)
        hidden = settings.mask_width
        self.mlp_q = MLP(width, hidden, hidden, hidden)
        self.mlp_pix = MLP(2 * width, hidden, hidden, hidden)
        if settings.masked_attention:
            sets = self._recognition_blocks if settings.biases_per_block else 1
            self.mlp_global = MLP(width, hidden, hidden, sets * self._heads * hidden)
            self.bias_global = _identity_affine()
            if not settings.single_resolution:
                self.mlp_local = MLP(width, hidden, hidden, sets * self._heads * hidden)
                self.bias_local = _identity_affine()
            self.prop_pos = nn.Parameter(INITIAL_STD * torch.randn(1, settings.queries, clip_width))
        embedding = self.clip_visual.output_dim
        self.bg_embed = nn.Parameter(embedding**-0.5 * torch.randn(1, embedding))

    def forward(self, pixels: Tensor) -> Prediction:
        """Masks and class embeddings of normalised, padded pixels (B, 3, H, W)."""
        return self.decode(self.features(pixels))

    @property
    def patch(self) -> int:
        """Pixels a side of CLIP's patches. Photos are padded so that both halves of a side have whole patches."""
        return self.clip_visual.patch_size[0]

    def features(self, pixels: Tensor) -> ClipFeatures:
        """What CLIP says of photos; without gradients where CLIP's positions are frozen, so that it can be kept.

        Args:
            pixels: normalised, (B, 3, H, W), padded by `slices.pad_to_slices`.

        Raises ValueError for photos that are not padded.
        """
        settings, batch = self.settings, len(pixels)
        slicing = Slicing.of((pixels.shape[2], pixels.shape[3]), self.patch, settings.slice_ratio)
        views = [slicing.global_view(pixels)]
        if not settings.single_resolution:
            views += slicing.cut(pixels)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not settings.freeze_positions):
            maps, class_tokens = self._read(torch.cat(views))
            low = {layer: of_views[:batch].contiguous() for layer, of_views in maps.items()}
            high = low
            if not settings.single_resolution:
                high = {layer: slicing.tile(of_views[batch:].split(batch)) for layer, of_views in maps.items()}
            of_views = torch.stack(class_tokens.split(batch))
            return ClipFeatures(low, high, of_views[0] if settings.class_token == "global" else of_views.mean(0))

    def decode(self, features: ClipFeatures, auxiliary: bool | None = None) -> Prediction:
        """Masks and class embeddings of photos.

        Args:
            features: of `features`.
            auxiliary: whether earlier blocks' predictions are wanted, too; None for those in training mode.
        """
        settings = self.settings
        fused, attention = self._fuse(features)
        points = dict(zip(settings.fusion_points, fused.values(), strict=True))
        pyramid = [fused[layer] for layer in settings.pyramid_layers]
        supervised = settings.auxiliary_blocks if (self.training if auxiliary is None else auxiliary) else ()
        *earlier, last = [
            self._predict(state, pyramid, features) for state in self.adapter(features.high[0], points, supervised)
        ]
        scale = torch.stack(attention, 1) if attention else last[0].new_zeros(len(last[0]), 0, 1, 1)
        others = tuple(Prediction(masks, found, scale[:, :0]) for masks, found in earlier)
        return Prediction(*last, scale, others)

    def class_logits(self, embeddings: Tensor, texts: Tensor) -> Tensor:
        """Logits (B, Q, C + 1), void last, of class embeddings (B, Q, D) and texts (C, D), all unit vectors."""
        return class_logits(embeddings, texts, self.bg_embed, self.settings.logit_scale)

    def _trained_grid(self) -> tuple[int, int]:
        """The grid of the adapter's map of a training crop."""
        settings = self.settings
        slicing = Slicing.of((settings.short_side, settings.short_side), self.patch, settings.slice_ratio)
        return slicing.grid if settings.single_resolution else slicing.whole_grid

    def _fusion(self, width: int, clip_width: int) -> nn.Module:
        settings = self.settings
        if not settings.fusion or settings.single_resolution:
            return SlicesAlone(width, clip_width)
        return MultiResolutionFusion(
            width,
            clip_width,
            kernel=settings.fusion_kernel,
            norm=settings.fusion_norm,
            source=settings.attention_source,
        )

    @property
    def layers_read(self) -> set[int]:
        """The layers whose maps are used."""
        settings, last = self.settings, len(self.clip_visual.blocks)
        if not settings.masked_attention:
            recognised = {last}
        else:
            recognised = set(range(settings.split, last)) if settings.keys_advance else {settings.split}
        return {0, *settings.fusion_layers, *recognised}

    def _read(self, views: Tensor) -> tuple[dict[int, Tensor], Tensor]:
        """Maps (V, h, w, W) by layer, and class tokens (V, W) after the layer `split`, of views (V, 3, h', w')."""
        tower, wanted, split = self.clip_visual, self.layers_read, self.settings.split
        patches, grid = tower.patchify(views)
        tokens, maps, done = tower.embed(patches, grid), {}, 0
        class_tokens = tokens[:, 0]
        for layer in sorted(wanted | {split}):
            tokens = tower.run_blocks(tokens, done, layer) if layer > done else tokens
            done = layer
            if layer in wanted:
                maps[layer] = tokens[:, 1:].unflatten(1, grid)
            if layer == split:
                class_tokens = tokens[:, 0]
        return maps, class_tokens

    def _fuse(self, features: ClipFeatures) -> tuple[dict[int, Tensor], list[Tensor]]:
        """The fused map (B, H', W', D) of every fusion layer, and the means (B, h', w') of their scale attention."""
        fused, means = {}, []
        for layer in self.settings.fusion_layers:
            fused[layer], attention = self.mrf[str(layer)](features.high[layer], features.low[layer])
            means += [] if attention is None else [attention.mean(-1)]
        return fused, means

    def _predict(self, state: AdapterState, pyramid: list[Tensor], features: ClipFeatures) -> tuple[Tensor, Tensor]:
        """Mask logits (B, Q, h, w) and class embeddings (B, Q, D) of the queries after an adapter block."""
        queries, adapted = state
        embedded = self.mlp_q(queries)
        pixels = self.hier(adapted, pyramid, self.mlp_pix)
        masks = torch.einsum("bqe,bhwe->bqhw", embedded, pixels)
        if not self.settings.masked_attention:
            return masks, pool_masks(self.clip_visual, masks, features.high[len(self.clip_visual.blocks)])
        keys, biases = self._keys(features), self._biases(embedded, adapted, features)
        tokens = features.class_token[:, None] + self.prop_pos
        settings = self.settings
        return masks, recognise(self.clip_visual, settings.split, tokens, keys, biases, settings.self_key)

    def _keys(self, features: ClipFeatures) -> list[Tensor]:
        """For every recognition block the patches that class tokens attend to, the global view's first, (B, N, W)."""
        split, single = self.settings.split, self.settings.single_resolution
        layers = [split + step * self.settings.keys_advance for step in range(self._recognition_blocks)]
        found = {
            layer: [maps[layer].flatten(1, 2) for maps in ([features.low] if single else [features.low, features.high])]
            for layer in set(layers)
        }
        return [torch.cat(found[layer], 1) for layer in layers]

    def _biases(self, queries: Tensor, adapted: Tensor, features: ClipFeatures) -> list[Tensor]:
        """For every recognition block the attention masks (B, heads, Q, N) over its keys."""
        low = features.low[0]
        pooled = max_pool(adapted, (low.shape[1], low.shape[2]))
        parts = [_affine(self.bias_global, attention_biases(queries, self.mlp_global(pooled), self._heads))]
        if not self.settings.single_resolution:
            parts.append(_affine(self.bias_local, attention_biases(queries, self.mlp_local(adapted), self._heads)))
        sets = list(torch.cat(parts, -1))
        return sets if self.settings.biases_per_block else sets * self._recognition_blocks


def _identity_affine() -> nn.Linear:
    """The learned factor and summand of attention masks, 1 and 0 before training, as a layer of one channel."""
    layer = nn.Linear(1, 1)
    nn.init.ones_(layer.weight)
    nn.init.zeros_(layer.bias)
    return layer


def _affine(layer: nn.Linear, values: Tensor) -> Tensor:
    return values * layer.weight[0, 0] + layer.bias[0]
