"""SAM's mask decoder for prompts of a single point: predicted quality first, then previews of masks, then the masks.

Everything mode prompts with hundreds of points and keeps a few dozen masks. The predicted quality needs no pixels, and
a preview, every fourth row and column of the logits, costs a sixteenth of them. So most masks are rejected before their
logits are computed in full.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.proposals.sam.image_tokens import ImageTokens, RowBases, SharedImage
from ovseg_demo.proposals.sam.mobile_sam import GRID, EncodedImage, MobileSam

MASKS = 3
"""Masks of a point, which may lie on a whole, a part and a subpart (Kirillov et al. 2023, section 3)."""

_NEAR_CENTRE = slice(2, 3), slice(1, 2)
"""Positions of the logit in row 2 and column 1 of the 4 x 4 logits of an image token.

The logit is in the lower left quarter, the third position of the first upscaling, and in the upper right quarter of
this quarter, the second position of the second upscaling.
"""


@dataclass(frozen=True)
class PreparedImage:
    """The results of the decoder that are the same for all points of an image.

    Attributes:
        shared_image: the part of the transformer's image tokens that all prompts share.
        upscaled: (rows, columns, 4 * 64), the first upscaling of the shared image tokens, without padding.
        offset: (4 * 64,), the constant that the first upscaling adds to every token.
        rows: the bases of the first upscaling of the rows, K = 4 * 64.
    """

    shared_image: SharedImage
    upscaled: Tensor
    offset: Tensor
    rows: RowBases


@dataclass(frozen=True)
class PointPredictions:
    """The decoder's predictions for B points, from which the logits of their masks follow.

    Attributes:
        quality: (B, 3), predicted IoU of each mask with a true object; about 0 to 1.
        mask_embeddings: (B, 3, 32); their products with the upscaled image tokens are the mask logits.
        image_tokens: the image tokens of the prompts.
    """

    quality: Tensor
    mask_embeddings: Tensor
    image_tokens: ImageTokens


class PointDecoder:
    """Prompt encoder and mask decoder of MobileSAM as functions of many single foreground points.

    Args:
        model: MobileSAM, loaded and on its device.
    """

    def __init__(self, model: MobileSam) -> None:
        self._prompt_encoder = model.prompt_encoder
        self._decoder: Any = model.mask_decoder  # whose layers have no static types
        # A transposed convolution of stride 2 and size 2 is a matrix from a pixel's channels to (position, channel),
        # the position being that of one of the pixel's 2 x 2 parts.
        first, self._norm, _, second, _ = self._decoder.output_upscaling
        self._first = first.weight.permute(2, 3, 1, 0).flatten(0, 2), first.bias.repeat(4)
        self._second = second.weight.permute(2, 3, 1, 0).flatten(0, 2), second.bias.repeat(4)

    @torch.inference_mode()
    def prepare(self, encoded: EncodedImage) -> PreparedImage:
        """Compute the results of the decoder that are the same for every point of an encoded image."""
        tokens = encoded.features[0].flatten(1) + self._prompt_encoder.no_mask_embed.weight.T
        position = self._prompt_encoder.get_dense_pe()[0].flatten(1)
        shared = SharedImage.from_tokens(self._decoder.transformer, tokens, position)
        weight, bias = self._first
        rows, columns = encoded.cells
        upscaled = (shared.shared.T @ weight.T).view(GRID, GRID, -1)[:rows, :columns].contiguous()
        return PreparedImage(shared, upscaled, weight @ shared.bias + bias, shared.rows.map(lambda r: r @ weight.T))

    @torch.inference_mode()
    def predict(self, prepared: PreparedImage, points: Tensor) -> PointPredictions:
        """Run the transformer for B prompts of one foreground point each.

        Args:
            prepared: the image.
            points: float (B, 2), x and y in pixels of the encoder's square.
        """
        decoder, shared = self._decoder, prepared.shared_image
        foreground = torch.ones(len(points), 1, device=points.device)
        sparse, _ = self._prompt_encoder((points[:, None], foreground), None, None)
        outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        embedding = torch.cat([outputs.expand(len(points), -1, -1), sparse], 1)
        image, tokens = ImageTokens(len(points), shared), embedding
        for layer, (keys, values, queries, statistics) in zip(decoder.transformer.layers, shared.layers, strict=True):
            if layer.skip_first_layer_pe:
                tokens = layer.norm1(layer.self_attn(q=tokens, k=tokens, v=tokens))
            else:
                queried = tokens + embedding
                tokens = layer.norm1(tokens + layer.self_attn(q=queried, k=queried, v=tokens))
            attention = layer.cross_attn_token_to_image
            attended = image.attend_to_image(attention.q_proj(tokens + embedding), keys, values)
            tokens = layer.norm2(tokens + attention.out_proj(attended))
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            attention = layer.cross_attn_image_to_token
            image.attend_to_prompts(attention.k_proj(tokens + embedding), attention.v_proj(tokens), queries, statistics)
        attention = decoder.transformer.final_attn_token_to_image
        attended = image.attend_to_image(attention.q_proj(tokens + embedding), *shared.final)
        tokens = decoder.transformer.norm_final_attn(tokens + attention.out_proj(attended))
        quality = decoder.iou_prediction_head(tokens[:, 0])[:, -MASKS:]
        networks = list(decoder.output_hypernetworks_mlps)[-MASKS:]
        mask_embeddings = torch.stack([network(tokens[:, i]) for i, network in enumerate(networks, 2)], 1)
        return PointPredictions(quality, mask_embeddings, image)

    @torch.inference_mode()
    def preview(self, prepared: PreparedImage, predictions: PointPredictions, points: Tensor) -> Tensor:
        """One logit near the centre of each image token, for the masks of some points.

        Args:
            prepared: the image.
            predictions: for B points.
            points: indices of b of these points, int (b,).

        Returns:
            (b, 3, rows, columns), every fourth row and column of `mask_logits`.
        """
        rows, columns, _ = prepared.upscaled.shape
        cells = slice(rows), slice(columns)
        return self._logits(prepared, predictions, points, cells, *_NEAR_CENTRE)[..., 0, 0, :].permute(0, 3, 1, 2)

    @torch.inference_mode()
    def mask_logits(
        self, prepared: PreparedImage, predictions: PointPredictions, points: Tensor, cells: tuple[slice, slice]
    ) -> Tensor:
        """Logits of the masks of some points on a rectangle of the image, at a quarter of the square's resolution.

        Args:
            prepared: the image.
            predictions: for B points.
            points: indices of b of these points, int (b,).
            cells: the rectangle, in rows and columns of image tokens.

        Returns:
            (b, 3, 4 * rows, 4 * columns).
        """
        logits = self._logits(prepared, predictions, points, cells, slice(None), slice(None))
        blocks = logits.unflatten(4, (2, 2)).unflatten(3, (2, 2))
        return blocks.permute(0, 7, 1, 3, 5, 2, 4, 6).flatten(5, 7).flatten(2, 4)

    def _logits(
        self,
        prepared: PreparedImage,
        predictions: PointPredictions,
        points: Tensor,
        cells: tuple[slice, slice],
        first: slice,
        second: slice,
    ) -> Tensor:
        """Mask logits at some of the positions that the two upscalings produce.

        Args:
            prepared: the image.
            predictions: for B points.
            points: indices of b of these points, int (b,).
            cells: rows and columns of image tokens.
            first: f of the 4 positions in a token, of the first upscaling.
            second: s of the 4 positions in each of these, of the second upscaling.

        Returns:
            (b, rows, columns, f, s, 3).
        """
        image = predictions.image_tokens

        def at_first(x: Tensor) -> Tensor:
            """The wanted positions of a first upscaling, whose 4 positions lie in the last dimension."""
            return x.unflatten(-1, (4, -1))[..., first, :].flatten(-2)

        def at_cells(maps: Tensor) -> Tensor:
            """The wanted points and cells of maps (..., B, P)."""
            return maps.unflatten(-1, (GRID, GRID))[..., *cells][..., points, :, :].flatten(-2)

        upscaled = at_first(prepared.upscaled[cells])
        shape = upscaled.shape[:2]
        base = torch.addcmul(at_first(prepared.offset), at_cells(image.scale)[..., None], upscaled.flatten(0, 1))
        rows = prepared.rows.map(at_first).rows(tuple(v[:, :, points] for v in image.values))
        pixels = base.baddbmm_(at_cells(image.coefficients).permute(1, 2, 0), rows)
        pixels = pixels.unflatten(-1, (-1, *self._norm.weight.shape))
        pixels = F.gelu(
            F.layer_norm(pixels, self._norm.weight.shape, self._norm.weight, self._norm.bias, self._norm.eps)
        )
        weight, bias = (x.unflatten(0, (4, -1))[second].flatten(0, 1) for x in self._second)
        pixels = F.gelu(F.linear(pixels, weight, bias)).unflatten(-1, (-1, predictions.mask_embeddings.shape[-1]))
        logits = pixels.flatten(1, -2) @ predictions.mask_embeddings[points].transpose(1, 2)
        return logits.view(len(points), *shape, *pixels.shape[2:4], MASKS)
