"""What the paper of MROVSeg leaves open, and where it contradicts itself: a setting for each, with a default.

The paper (Zhu et al., arXiv 2408.14776 v1) was published without code. Where it is silent, the default follows SAN (Xu
et al., CVPR 2023), on which MROVSeg builds. docs/mrovseg.md has the paper's statement beside each setting.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

from ovseg_demo.models.clip.positions import PositionRule

PARTS = ("adapter", "fusion", "masked_attention")
"""The parts of the model that can be switched off, for the ablations of the paper's table 2."""


@dataclass(frozen=True)
class MROVSegSettings:
    """The choices by which a MROVSeg is built; a trained file has them in its metadata.

    Layers are counted by CLIP's transformer blocks: layer 0 is the stem, before the first block, and layer l is after
    the l-th block.

    Attributes:
        architecture: open_clip's name of the CLIP.
        fusion_layers: layers whose maps are fused, ascending. The text of section 4.1 gives (0, 3, 6, 9) for ViT-B/16;
            the row of table 4(d) that agrees with all other tables has layer 12 too.
        fusion_points: the number of adapter blocks that come before each fused map is added, one for each fusion layer.
            The paper does not say it; the first four are SAN's.
        pyramid_layers: the three fusion layers whose maps the mask decoder reads, ascending (section 3.5: three maps).
        split: the layer whose class token starts the queries' class tokens; the recognition blocks follow it.
        short_side: pixels of a photo's shorter side in training (a square crop) and, if nothing else is asked for, at
            inference. Slices of ViT-L/14 cannot be the paper's 320 pixels, no multiple of 14.
        slice_ratio: p, side of a slice as a share of the photo's side, from 0.5 to 1 (table 3). Beyond 0.5 slices
            overlap.
        queries: number of mask queries.
        adapter_blocks: transformer blocks of the Multi-Res Adapter.
        adapter_width: D, channels of the adapter and of all fused maps.
        adapter_heads: attention heads of the adapter.
        adapter_positions: when position embeddings are added to the adapter's visual tokens, of which the paper says
            nothing: before every block, as in SAN; before the first; or never.
        auxiliary_blocks: adapter blocks, counted from 1, after which masks and classes are supervised beside the last
            block's. The paper has no losses; SAN supervises its last two blocks.
        fusion_kernel: side of the depthwise convolution over the high-resolution map, odd.
        fusion_norm: which maps are normalised over their channels before they are fused: the high-resolution ones (as
            in SAN), both, or none.
        attention_source: the map that the scale attention is predicted from. Below equation 2 the paper has a symbol of
            the high resolution, but declares the size of the low resolution; "high" averages the map to that size.
        mask_width: channels of the mask embeddings.
        biases_per_block: whether every recognition block has attention masks of its own; SAN has one set for all.
        keys_advance: whether the patch tokens advance from one recognition block to the next, as equation 8 and the
            cost in table 5 suggest, or stay those of layer `split`, as algorithm 1 can be read.
        self_key: whether a class token also attends to itself, as in SAN; equation 8 has no such term.
        class_token: the class token that the queries start from: the global view's, or the mean of all views'.
        position_rule: how CLIP's position embeddings are interpolated; bicubic as in SAN.
        freeze_positions: whether CLIP's position embeddings stay as they are (section 3.6: CLIP's parameters do not
            change); SAN trains them.
        templates: prompts of the words: ViLD's 14, with which SAN trains, or the 80 of ImageNet.
        logit_scale: factor of the cosines of class embeddings and texts: CLIP's, 100.
        adapter: without it, the visual tokens stay CLIP's and only the queries pass through the adapter's blocks.
        fusion: without it, the fused map is the slices' map as it is.
        masked_attention: without it, a class embedding is the mean, weighted by the mask, of CLIP's last patch tokens.
        single_resolution: whether CLIP reads the global view alone, with no slices.
    """

    architecture: str
    fusion_layers: tuple[int, ...]
    pyramid_layers: tuple[int, int, int]
    split: int
    short_side: int
    fusion_points: tuple[int, ...] = (0, 1, 2, 3, 4)
    slice_ratio: float = 0.5
    queries: int = 100
    adapter_blocks: int = 6
    adapter_width: int = 768
    adapter_heads: int = 12
    adapter_positions: Literal["every block", "first block", "none"] = "every block"
    auxiliary_blocks: tuple[int, ...] = (5,)
    fusion_kernel: int = 3
    fusion_norm: Literal["high", "both", "none"] = "high"
    attention_source: Literal["low", "high"] = "low"
    mask_width: int = 256
    biases_per_block: bool = False
    keys_advance: bool = True
    self_key: bool = False
    class_token: Literal["global", "mean"] = "global"
    position_rule: PositionRule = "bicubic"
    freeze_positions: bool = True
    templates: Literal["vild", "imagenet"] = "vild"
    logit_scale: float = 100.0
    adapter: bool = True
    fusion: bool = True
    masked_attention: bool = True
    single_resolution: bool = False

    def __post_init__(self) -> None:
        """Raises ValueError, one sentence, for settings that do not fit together."""
        if len(self.fusion_points) != len(self.fusion_layers):
            raise ValueError(
                f"{len(self.fusion_layers)} fusion layers need as many fusion points, not {len(self.fusion_points)}."
            )
        if max(self.fusion_points) > self.adapter_blocks:
            raise ValueError(
                f"There are {self.adapter_blocks} adapter blocks; none of them is {max(self.fusion_points)}."
            )
        if any(not 1 <= block < self.adapter_blocks for block in self.auxiliary_blocks):
            raise ValueError(f"Auxiliary blocks lie between 1 and {self.adapter_blocks - 1}.")
        if missing := set(self.pyramid_layers) - set(self.fusion_layers):
            raise ValueError(f"The mask decoder reads layer {min(missing)}, which is no fusion layer.")
        if not 0.5 <= self.slice_ratio <= 1:
            raise ValueError(f"The slice ratio lies between 0.5 and 1; got {self.slice_ratio}.")
        if self.fusion_kernel % 2 == 0:
            raise ValueError(f"The kernel of the fusion has an odd side; got {self.fusion_kernel}.")

    def to_json(self) -> str:
        """All settings as text, for the metadata of a file."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> "MROVSegSettings":
        """The inverse of `to_json`. Raises ValueError for other text and for settings that do not fit together."""
        values = json.loads(text)
        if not isinstance(values, Mapping) or not values.keys() <= {field.name for field in fields(cls)}:
            raise ValueError("These are no settings of MROVSeg.")
        try:
            return cls(**{name: _hashable(value) for name, value in values.items()})
        except TypeError as error:
            raise ValueError("Settings of MROVSeg are missing, or of another type.") from error


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


SETTINGS = {
    "ViT-B-16": MROVSegSettings(
        "ViT-B-16-quickgelu", fusion_layers=(0, 3, 6, 9, 12), pyramid_layers=(3, 6, 9), split=9, short_side=640
    ),
    "ViT-L-14-336": MROVSegSettings(
        "ViT-L-14-336-quickgelu", fusion_layers=(0, 6, 12, 18, 24), pyramid_layers=(6, 12, 18), split=18, short_side=672
    ),
}
"""The published models by the name of their CLIP."""
