"""SAM's mask decoder for single points: quality first, then a coarse look at the masks, then the masks themselves.

Everything mode asks about hundreds of points and keeps a few dozen masks. The predicted quality needs no pixels, and
every fourth row and column of the logits costs a sixteenth of all of them, so most masks are turned down unseen.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from ovseg_demo.proposals.sam.image_tokens import ImageTokens, Rows, Scene
from ovseg_demo.proposals.sam.mobile_sam import GRID, EncodedImage, MobileSam

MASKS = 3
"""Masks a point: there may be a whole, a part and a subpart under it."""

_NEAR_CENTRE = slice(2, 3), slice(1, 2)  # lower left, then upper right in it: row 2 and column 1 of 4 x 4


@dataclass(frozen=True)
class PreparedImage:
    """An encoded image, ready for points.

    Attributes:
        scene: what the transformer shares among prompts.
        upscaled: (rows, columns, 4 * 64), the first upscaling of the shared image tokens, without padding.
        fixed: (4 * 64,), what it adds to every token.
        rows: the first upscaling of the rows, K = 4 * 64.
    """

    scene: Scene
    upscaled: Tensor
    fixed: Tensor
    rows: Rows


@dataclass(frozen=True)
class PointPredictions:
    """What the decoder says about B points before any mask is drawn.

    Attributes:
        quality: (B, 3), predicted IoU of each mask with a true object; about 0 to 1.
        hyper: (B, 3, 32), what the upscaled image of the prompt is multiplied with.
        tokens: the image tokens of the prompts.
    """

    quality: Tensor
    hyper: Tensor
    tokens: ImageTokens


class PointDecoder:
    """Prompt encoder and mask decoder of MobileSAM as functions of many single foreground points."""

    def __init__(self, model: MobileSam) -> None:
        self.prompts, self.decoder = model.prompt_encoder, model.mask_decoder
        # Transposed convolutions with stride 2 and size 2 are matrices from a pixel's channels to (offset, channel).
        first, self.norm, _, second, _ = self.decoder.output_upscaling
        self.first = first.weight.permute(2, 3, 1, 0).flatten(0, 2), first.bias.repeat(4)
        self.second = second.weight.permute(2, 3, 1, 0).flatten(0, 2), second.bias.repeat(4)

    @torch.inference_mode()
    def view(self, encoded: EncodedImage) -> PreparedImage:
        """Do everything that no point changes."""
        tokens = encoded.features[0].flatten(1) + self.prompts.no_mask_embed.weight.T
        position = self.prompts.get_dense_pe()[0].flatten(1)
        scene = Scene.of(self.decoder.transformer, tokens, position)
        weight, bias = self.first
        rows, columns = encoded.cells
        upscaled = (scene.shared.T @ weight.T).view(GRID, GRID, -1)[:rows, :columns].contiguous()
        return PreparedImage(scene, upscaled, weight @ scene.bias + bias, scene.rows.map(lambda r: r @ weight.T))

    @torch.inference_mode()
    def ask(self, view: PreparedImage, points: Tensor) -> PointPredictions:
        """Put B points, float (B, 2), x and y in pixels of the encoder's square."""
        decoder, scene = self.decoder, view.scene
        foreground = torch.ones(len(points), 1, device=points.device)
        sparse, _ = self.prompts((points[:, None], foreground), None, None)
        outputs = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        place = torch.cat([outputs.expand(len(points), -1, -1), sparse], 1)
        image, tokens = ImageTokens(len(points), scene), place
        for layer, (keys, values, queries, norm) in zip(decoder.transformer.layers, scene.layers, strict=True):
            if layer.skip_first_layer_pe:
                tokens = layer.norm1(layer.self_attn(q=tokens, k=tokens, v=tokens))
            else:
                placed = tokens + place
                tokens = layer.norm1(tokens + layer.self_attn(q=placed, k=placed, v=tokens))
            attention = layer.cross_attn_token_to_image
            found = image.attended(attention.q_proj(tokens + place), keys, values)
            tokens = layer.norm2(tokens + attention.out_proj(found))
            tokens = layer.norm3(tokens + layer.mlp(tokens))
            attention = layer.cross_attn_image_to_token
            image.attend(attention.k_proj(tokens + place), attention.v_proj(tokens), queries, norm)
        attention = decoder.transformer.final_attn_token_to_image
        found = image.attended(attention.q_proj(tokens + place), *scene.final)
        tokens = decoder.transformer.norm_final_attn(tokens + attention.out_proj(found))
        quality = decoder.iou_prediction_head(tokens[:, 0])[:, -MASKS:]
        networks = list(decoder.output_hypernetworks_mlps)[-MASKS:]
        hyper = torch.stack([network(tokens[:, i]) for i, network in enumerate(networks, 2)], 1)
        return PointPredictions(quality, hyper, image)

    @torch.inference_mode()
    def preview(self, view: PreparedImage, answers: PointPredictions, points: Tensor) -> Tensor:
        """The middle logit of each image token, for the masks of some points.

        Args:
            points: which of the answers, int (b,).

        Returns:
            (b, 3, rows, columns), every fourth row and column of `draw`.
        """
        rows, columns, _ = view.upscaled.shape
        cells = slice(rows), slice(columns)
        return self._logits(view, answers, points, cells, *_NEAR_CENTRE)[..., 0, 0, :].permute(0, 3, 1, 2)

    @torch.inference_mode()
    def draw(
        self, view: PreparedImage, answers: PointPredictions, points: Tensor, cells: tuple[slice, slice]
    ) -> Tensor:
        """Logits of the masks of some points on a rectangle of the image, at a quarter of the square's resolution.

        Args:
            points: which of the answers, int (b,).
            cells: rows and columns of image tokens.

        Returns:
            (b, 3, 4 * rows, 4 * columns).
        """
        logits = self._logits(view, answers, points, cells, slice(None), slice(None))
        blocks = logits.unflatten(4, (2, 2)).unflatten(3, (2, 2))
        return blocks.permute(0, 7, 1, 3, 5, 2, 4, 6).flatten(5, 7).flatten(2, 4)

    def _logits(
        self,
        view: PreparedImage,
        answers: PointPredictions,
        points: Tensor,
        cells: tuple[slice, slice],
        first: slice,
        second: slice,
    ) -> Tensor:
        """Logits (b, rows, columns, f, s, 3) at some of the 4 and 4 offsets of the two upscalings."""
        image = answers.tokens

        def chosen(x: Tensor) -> Tensor:
            """The offsets asked for, of the first upscaling in the last dimension."""
            return x.unflatten(-1, (4, -1))[..., first, :].flatten(-2)

        def inside(maps: Tensor) -> Tensor:
            """The points and cells asked for, of maps (..., B, P)."""
            return maps.unflatten(-1, (GRID, GRID))[..., *cells][..., points, :, :].flatten(-2)

        upscaled = chosen(view.upscaled[cells])
        shape = upscaled.shape[:2]
        base = torch.addcmul(chosen(view.fixed), inside(image.scale)[..., None], upscaled.flatten(0, 1))
        rows = view.rows.map(chosen).of(tuple(v[:, :, points] for v in image.values))
        pixels = base.baddbmm_(inside(image.coefficients).permute(1, 2, 0), rows)
        pixels = pixels.unflatten(-1, (-1, *self.norm.weight.shape))
        pixels = F.gelu(F.layer_norm(pixels, self.norm.weight.shape, self.norm.weight, self.norm.bias, self.norm.eps))
        weight, bias = (x.unflatten(0, (4, -1))[second].flatten(0, 1) for x in self.second)
        pixels = F.gelu(F.linear(pixels, weight, bias)).unflatten(-1, (-1, answers.hyper.shape[-1]))
        logits = pixels.flatten(1, -2) @ answers.hyper[points].transpose(1, 2)
        return logits.view(len(points), *shape, *pixels.shape[2:4], MASKS)
