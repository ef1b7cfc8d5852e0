"""SED's decoder at work: the function of `decoder.Decoder`, faster, in bounded memory, and with early rejection."""

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ovseg_demo.methods.sed.decoder import Decoder
from ovseg_demo.methods.sed.optimised_layers import ClassAttention, CostSkips, Embedding, Growth, Head, SpatialFusion
from ovseg_demo.proposals.base import Report
from ovseg_demo.runtime.worker_pool import WorkerPool, worker_pool

if TYPE_CHECKING:
    from ovseg_demo.models.clip.optimised import Precision

_CHUNK = {"cpu": 2**18}
"""Numbers in a map that is computed at once, by device: on a CPU so few that they stay in its cache."""
_CHUNK_ELSEWHERE = 2**26


@dataclass(frozen=True)
class DecoderOutput:
    """What the decoder says of one image.

    Attributes:
        logits: before the stages, (T, h, w), and after each of them, (K0, 2h, 2w), (K1, 4h, 4w) and (K2, 8h, 8w); the
            last is the result. All float32.
        kept: the classes that these four speak of, int64 indices in their order: all T, K0 of them, K1 of those, and
            K2 of those. Classes that are not kept have probability zero.
    """

    logits: tuple[Tensor, ...]
    kept: tuple[Tensor, ...]


class OptimisedDecoder:
    """A decoder for use: no gradients, and its weights as they were when this was made.

    Classes meet only in the attention between them, which is local to each place. So all layers but that one run on a
    few classes at a time, and that one on a few places at a time: no result depends on how they are cut. What memory
    holds of every class is one map a stage, and no intermediate one.
    """

    def __init__(self, decoder: Decoder, precision: "Precision" = "float32") -> None:
        """
        Args:
            precision: of products. Norms and all that adds up over layers are float32; so are sums over classes.
        """
        decoder = copy.deepcopy(decoder).requires_grad_(False)
        self._dtype = getattr(torch, precision)
        self._embed = Embedding(decoder.embed, self._dtype)
        self._cost_skips = CostSkips(decoder.cost_skips, self._dtype)
        self._skips = decoder.skips
        self._spatial = [SpatialFusion(stage.spatial, self._dtype) for stage in decoder.stages]
        self._classes = [ClassAttention(stage.classes, self._dtype) for stage in decoder.stages]
        self._growth = [Growth(stage, self._dtype) for stage in decoder.stages]
        self._heads = [Head(head) for head in decoder.heads]

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
            rejection: for category early rejection (section 3.3 of the paper), the k of each stage: it goes on with the
                classes that are among the k likeliest at one place at least. None keeps all; so does any k that is not
                less than the number of classes left.
            report: called after the embedding and between the stages; what it raises ends the work.
        """
        with worker_pool(cost.device) as workers:
            return self._decoded(workers, cost, skips, rejection or (len(cost),) * len(self._growth), report)

    def _decoded(
        self, workers: WorkerPool, cost: Tensor, skips: Sequence[Tensor], rejection: Sequence[int], report: Report
    ) -> DecoderOutput:
        # Cosines with an image differ little. Without their mean, half precision is left for what they tell apart.
        mean = cost.mean((0, 2, 3))
        cost = self._centred(workers, cost, mean)
        x, logits = self._embedded(workers, cost, mean)
        bias = self._cost_skips.bias(mean)
        kept = [torch.arange(len(cost), device=cost.device)]
        found = [logits]
        for stage, (skip, k) in enumerate(zip(skips, rejection, strict=True)):
            report((stage + 1) / (len(self._growth) + 1))
            among = survivors(found[-1], k)
            if len(among) < len(x):
                x, cost = x[among], cost[among]
            kept.append(kept[-1][among])
            self._fuse(workers, stage, x)
            x, logits = self._grown(workers, stage, x, cost, bias, skip)
            found.append(logits)
        return DecoderOutput(tuple(found), tuple(kept))

    def _centred(self, workers: WorkerPool, cost: Tensor, mean: Tensor) -> Tensor:
        """(T, P, h, w) to (T, h, w, P)."""
        centred = cost.new_empty(len(cost), *cost.shape[2:], len(mean), dtype=self._dtype)

        def work(part: slice) -> None:
            centred[part] = (cost[part] - mean[:, None, None]).to(self._dtype).permute(0, 2, 3, 1)

        workers.map(work, list(_chunks(len(cost), cost[0].numel(), cost.device)))
        return centred

    def _embedded(self, workers: WorkerPool, cost: Tensor, mean: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding (T, h, w, C) and logits (T, h, w)."""
        base = self._embed.base(mean, cost.shape[1:3])
        return self._by_class(
            workers, len(cost), base.shape, cost.device, self._heads[0], lambda part: self._embed(cost[part], base)
        )

    def _fuse(self, workers: WorkerPool, stage: int, x: Tensor) -> None:
        """Spatial fusion and attention between classes of (T, h, w, C), in place."""
        spatial, classes = self._spatial[stage], self._classes[stage]
        places = x.flatten(1, 2)
        by_class = list(_chunks(len(x), x[0].numel(), x.device))
        by_place = list(_chunks(places.shape[1], places[:, 0].numel(), x.device))
        workers.map(lambda part: spatial.add_to(x[part]), by_class)
        workers.map(lambda part: classes.add_to(places[:, part]), by_place)

    def _grown(
        self, workers: WorkerPool, stage: int, x: Tensor, cost: Tensor, bias: Tensor, skip: Tensor
    ) -> tuple[Tensor | None, Tensor]:
        """The next stage's input (T, 2h, 2w, C'), which none is after the last one, and logits (T, 2h, 2w)."""
        grow, head = self._growth[stage], self._heads[stage + 1]
        base = grow.base(self._skips[stage](skip[None].float()).relu()[0])

        def work(part: slice) -> Tensor:
            return grow(x[part], self._cost_skips(cost[part], bias, stage + 1), base)

        last = stage == len(self._growth) - 1
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
    ) -> tuple[Tensor | None, Tensor]:
        """Maps (count, h, w, C) that `work` makes of some classes each time, unless discarded, and their logits."""
        logits = torch.empty(count, *shape[:2], device=device)
        maps = None if discard else torch.empty(count, *shape, device=device)

        def filled(part: slice) -> None:
            made = work(part)
            logits[part] = head(made)
            if maps is not None:
                maps[part] = made

        workers.map(filled, list(_chunks(count, shape.numel(), device)))
        return maps, logits


def survivors(logits: Tensor, k: int) -> Tensor:
    """Which of (T, h, w) are among the k largest at one place at least: ascending int64 indices."""
    if k >= len(logits):
        return torch.arange(len(logits), device=logits.device)
    best = logits.flatten(1).topk(k, 0, sorted=False).indices
    return best.unique()


def _chunks(count: int, size: int, device: torch.device) -> Iterator[slice]:
    """Cut `count` items of `size` numbers each into parts that are worked on at once."""
    step = max(1, _CHUNK.get(device.type, _CHUNK_ELSEWHERE) // size)
    return (slice(start, start + step) for start in range(0, count, step))
