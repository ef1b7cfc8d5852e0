"""SED's decoder for inference: the function of `decoder.Decoder`, faster, in bounded memory, with early rejection."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from ovseg_demo.methods.sed.decoder import Decoder, Stage
from ovseg_demo.methods.sed.optimised_layers import (
    ClassAttention,
    CostSkips,
    Embedding,
    Head,
    SpatialFusion,
    Upsampling,
)
from ovseg_demo.proposals.base import Report
from ovseg_demo.runtime.worker_pool import WorkerPool, worker_pool

if TYPE_CHECKING:
    from ovseg_demo.models.clip.optimised import Precision

_CHUNK = {"cpu": 2**18}
"""Elements of the maps that are computed at once, by type of device: on a CPU so few that they stay in its cache."""
_CHUNK_ELSEWHERE = 2**26


@dataclass(frozen=True)
class DecoderOutput:
    """The logits of one image.

    Attributes:
        logits: before the stages, (T, h, w), and after each of them, (K0, 2h, 2w), (K1, 4h, 4w) and (K2, 8h, 8w); the
            last is the result. All float32.
        kept_classes: the indices of the classes of these four tensors, int64, ascending: all T, then K0 of them, K1 of
            these, and K2 of these. A class that is not kept has probability zero.
    """

    logits: tuple[Tensor, ...]
    kept_classes: tuple[Tensor, ...]


class OptimisedDecoder:
    """A decoder for inference, without gradients, on a copy of the weights.

    Classes depend on each other only in the attention between classes, which acts at each position separately. So the
    attention runs on a few positions at a time, and all other layers on a few classes at a time; the results do not
    depend on the size of these chunks. Memory holds the input of one stage for all classes, and intermediate maps of a
    single chunk.

    Args:
        decoder: with its weights loaded, on its device.
        precision: of matrix products and convolutions. Norms, the residual stream and sums over classes are float32.
    """

    def __init__(self, decoder: Decoder, precision: "Precision" = "float32") -> None:
        decoder = copy.deepcopy(decoder).requires_grad_(False)
        self._dtype = getattr(torch, precision)
        self._embed = Embedding(decoder.embed, self._dtype)
        self._cost_skips = CostSkips(cast(Sequence[nn.ConvTranspose2d], decoder.cost_skips), self._dtype)
        self._skips = decoder.skips
        stages = cast(Sequence[Stage], decoder.stages)
        self._spatial = [SpatialFusion(stage.spatial, self._dtype) for stage in stages]
        self._classes = [ClassAttention(stage.classes, self._dtype) for stage in stages]
        self._upsampling = [Upsampling(stage, self._dtype) for stage in stages]
        self._heads = [Head(head) for head in cast(Sequence[nn.Conv2d], decoder.heads)]

    @torch.inference_mode()
    def __call__(
        self,
        cost: Tensor,
        skips: Sequence[Tensor],
        rejection: Sequence[int] | None = None,
        report: Report = lambda _: None,
    ) -> DecoderOutput:
        """Decode one image.

        Args:
            cost: cosines float32 (T, P, h, w), see `decoder.cost_map`.
            skips: image features (C, 2h, 2w), (C', 4h, 4w), (C'', 8h, 8w).
            rejection: for category early rejection (section 3.3 of the paper) the k of each stage, which continues with
                the classes that are among the k likeliest at one position at least. None keeps all classes, and so does
                a k that is not less than the number of remaining classes.
            report: progress callback, called before each stage; an exception that it raises ends the work.
        """
        with worker_pool(cost.device) as workers:
            return self._decode(workers, cost, skips, rejection or (len(cost),) * len(self._upsampling), report)

    def _decode(
        self, workers: WorkerPool, cost: Tensor, skips: Sequence[Tensor], rejection: Sequence[int], report: Report
    ) -> DecoderOutput:
        # The cosines of an image differ little. Without their mean, half precision resolves their differences.
        mean = cost.mean((0, 2, 3))
        cost = self._centre(workers, cost, mean)
        x, logits = self._embed_cost(workers, cost, mean)
        bias = self._cost_skips.bias(mean)
        kept_classes = [torch.arange(len(cost), device=cost.device)]
        all_logits = [logits]
        for stage, (skip, k) in enumerate(zip(skips, rejection, strict=True)):
            report((stage + 1) / (len(self._upsampling) + 1))
            kept = likeliest_classes(all_logits[-1], k)
            if len(kept) < len(x):
                x, cost = x[kept], cost[kept]
            kept_classes.append(kept_classes[-1][kept])
            self._fuse(workers, stage, x)
            x, logits = self._upsample(workers, stage, x, cost, bias, skip)
            all_logits.append(logits)
        return DecoderOutput(tuple(all_logits), tuple(kept_classes))

    def _centre(self, workers: WorkerPool, cost: Tensor, mean: Tensor) -> Tensor:
        """The cost map without its mean over classes and positions, (T, P, h, w) to (T, h, w, P)."""
        centred = cost.new_empty(len(cost), *cost.shape[2:], len(mean), dtype=self._dtype)

        def work(part: slice) -> None:
            centred[part] = (cost[part] - mean[:, None, None]).to(self._dtype).permute(0, 2, 3, 1)

        workers.map(work, list(_chunks(len(cost), cost[0].numel(), cost.device)))
        return centred

    def _embed_cost(self, workers: WorkerPool, cost: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """The cost embedding (T, h, w, C) and logits (T, h, w), of cost maps without their mean, (T, h, w, P)."""
        base = self._embed.base(mean, (cost.shape[1], cost.shape[2]))
        return self._by_class(
            workers, len(cost), base.shape, cost.device, self._heads[0], lambda part: self._embed(cost[part], base)
        )

    def _fuse(self, workers: WorkerPool, stage: int, x: Tensor) -> None:
        """Spatial fusion and attention between classes of (T, h, w, C), in place."""
        spatial, classes = self._spatial[stage], self._classes[stage]
        positions = x.flatten(1, 2)
        by_class = list(_chunks(len(x), x[0].numel(), x.device))
        by_position = list(_chunks(positions.shape[1], positions[:, 0].numel(), x.device))
        workers.map(lambda part: spatial.add_to(x[part]), by_class)
        workers.map(lambda part: classes.add_to(positions[:, part]), by_position)

    def _upsample(
        self, workers: WorkerPool, stage: int, x: Tensor, cost: Tensor, bias: Tensor, skip: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The input of the next stage (T, 2h, 2w, C'), empty after the last stage, and logits (T, 2h, 2w)."""
        upsample, head = self._upsampling[stage], self._heads[stage + 1]
        base = upsample.base(self._skips[stage](skip[None].float()).relu()[0])

        def work(part: slice) -> Tensor:
            return upsample(x[part], self._cost_skips(cost[part], bias, stage + 1), base)

        last = stage == len(self._upsampling) - 1
        return self._by_class(workers, len(x), base.shape, x.device, head, work, discard=last)

    @staticmethod
    def _by_class(
        workers: WorkerPool,
        count: int,
        shape: torch.Size,
        device: torch.device,
        head: Head,
        work: Callable[[slice], Tensor],
        discard: bool = False,
    ) -> tuple[Tensor, Tensor]:
        """Compute maps of `count` classes by chunks of classes, and their logits.

        Args:
            workers: run the chunks.
            count: T, the number of classes.
            shape: (h, w, C) of a class's maps.
            device: of the maps.
            head: maps (n, h, w, C) to logits (n, h, w).
            work: computes the maps of a chunk of classes.
            discard: whether to drop the maps once their logits are known.

        Returns:
            The maps (T, h, w, C), or (0, h, w, C) if they are discarded, and the logits (T, h, w).
        """
        logits = torch.empty(count, *shape[:2], device=device)
        maps = torch.empty(0 if discard else count, *shape, device=device)

        def fill(part: slice) -> None:
            computed = work(part)
            logits[part] = head(computed)
            if not discard:
                maps[part] = computed

        workers.map(fill, list(_chunks(count, shape.numel(), device)))
        return maps, logits


def likeliest_classes(logits: Tensor, k: int) -> Tensor:
    """The classes that are among the k likeliest classes of at least one position.

    Args:
        logits: (T, h, w).
        k: at least 1.

    Returns:
        The indices of these classes, int64, ascending.
    """
    if k >= len(logits):
        return torch.arange(len(logits), device=logits.device)
    best = logits.flatten(1).topk(k, 0, sorted=False).indices
    return best.unique()


def _chunks(count: int, size: int, device: torch.device) -> Iterator[slice]:
    """Slices of `count` items with `size` elements each, such that a chunk fits the cache of the device."""
    step = max(1, _CHUNK.get(device.type, _CHUNK_ELSEWHERE) // size)
    return (slice(start, start + step) for start in range(0, count, step))
