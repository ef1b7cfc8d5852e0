"""Training of the dense head: the embedding of every place of a photo against the word of its class.

Windows of labelled photos at random scales (`windows`). Places are drawn evenly over classes; the embedding of a place
must be nearer to its word than to the other words of its set, to ImageNet's names, and to "none of these", a vector
that is learned from pixels of background and not used at inference. As in the demo, the logits of the anchors are added
to those of the head: so the head learns what the anchors do not know, and no more.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.heads import WIDTH, DenseHead
from ovseg_demo.models.mini.towers import ImageTower, TextTower
from train.common.image_sets import LabelledSet
from train.common.loop import fit
from train.common.run_folder import RunFolder
from train.common.sampling import Batch, SetSampler
from train.common.schedule import Schedule
from train.mini.heads.trained_head import TrainedHead
from train.mini.heads.windows import MAPS, WindowFeatures
from train.mini.lexicon import Lexicon

_UNLABELLED = -1


@dataclass(frozen=True)
class DenseBatchSizes:
    """The size of a batch.

    Attributes:
        windows: number of windows.
        places: number of places that are drawn in each window.
        distractors: number of ImageNet names that are negatives.
    """

    windows: int = 8
    places: int = 1000
    distractors: int = 200


SMOKE_BATCH = DenseBatchSizes(windows=2, places=200, distractors=50)

_MEAN_BATCHES = 10


def train_dense_head(
    training_sets: Sequence[LabelledSet],
    lexicon: Lexicon,
    windows: WindowFeatures,
    sizes: DenseBatchSizes,
    schedule: Schedule,
    folder: RunFolder,
) -> TrainedHead:
    """Train a dense head on labelled photos.

    Args:
        training_sets: the photos.
        lexicon: text embeddings of their words.
        windows: windows of these photos, and of others perhaps.
        sizes: how much is drawn in a step.
        schedule: how long and how fast to train; its seed also initialises the head.
        folder: holds the state of the training and the log.

    Returns:
        The head, with the mean of its embeddings of windows.
    """
    batches = DenseBatches(training_sets, lexicon, windows, sizes)
    torch.manual_seed(schedule.seed)
    training = DenseTraining(DenseHead(ImageTower.CHANNELS, TextTower.WIDTH, WIDTH), windows.anchors)
    fit(training, batches, schedule, folder, title="dense head")
    generator = torch.Generator().manual_seed(schedule.seed)
    with torch.inference_mode():
        embeddings = (training.embed_places(batches(generator)) for _ in range(_MEAN_BATCHES))
        mean = torch.stack([places.mean(0) for places in embeddings if len(places)]).mean(0)
    return TrainedHead(training.head, training.scale.exp().item(), mean)


class DenseBatches:
    """A `BatchSampler` of windows of labelled photos; sets are drawn by `SetSampler`.

    A batch has the maps of B windows by their names in MAPS, (B, C, h, w); of the P drawn places
    "places", flat indices into the B windows, int64 (P,), and "words", rows of the right words, int64 (P,); "texts" (W,
    384) and "distractors" (M, 384), unit vectors; and "excluded", bool (P, W + 1 + M), the words, "none of these" and
    the distractors that are no negatives of a place.

    Args:
        sources: the sets.
        lexicon: text embeddings of their words.
        windows: windows of the photos.
        sizes: the size of a batch.
    """

    def __init__(
        self, sources: Sequence[LabelledSet], lexicon: Lexicon, windows: WindowFeatures, sizes: DenseBatchSizes
    ) -> None:
        self._sources, self._lexicon, self._windows, self._sizes = sources, lexicon, windows, sizes
        self._sampler = SetSampler([len(source.dataset) for source in sources], [len(s.names) for s in sources])
        none = len(lexicon.words)
        # For each set: the lexicon's row of each label, and the words, "none of these" among them, that are labelled.
        self._rows = [_rows(source, lexicon, none) for source in sources]
        self._distinguished = torch.zeros(len(sources), none + 1, dtype=torch.bool)
        for distinguished, rows in zip(self._distinguished, self._rows, strict=True):
            distinguished[rows[rows != _UNLABELLED]] = True

    def __call__(self, generator: torch.Generator) -> Batch:
        sizes = self._sizes
        sets = self._sampler.draw_sets(sizes.windows, generator)
        windows, places, words = [], [], []
        for window_number, set_number in enumerate(sets):
            maps, rows = self._window(set_number, generator)
            drawn = _draw_places(rows, sizes.places, generator)
            windows.append(maps)
            places.append(drawn + window_number * rows.numel())
            words.append(rows.flatten()[drawn])
        set_of_place = torch.tensor(sets).repeat_interleave(torch.tensor([len(drawn) for drawn in places]))
        distractors = torch.randperm(len(self._lexicon.imagenet), generator=generator)[: sizes.distractors]
        return {
            **{name: torch.cat([maps[name] for maps in windows]) for name in MAPS},
            "places": torch.cat(places),
            "words": torch.cat(words),
            "texts": self._lexicon.draw(generator),
            "distractors": self._lexicon.imagenet[distractors],
            "excluded": self._excluded(torch.cat(words), set_of_place, distractors),
        }

    def _window(self, set_number: int, generator: torch.Generator) -> tuple[dict[str, Tensor], Tensor]:
        """The maps of a window, and the rows of the words of its places, int64 (h, w)."""
        source = self._sources[set_number]
        sample = source.dataset.samples[self._sampler.draw_photo(set_number, generator)]
        maps, labels = self._windows.draw(source, sample, generator)
        return maps, self._rows[set_number][labels]

    def _excluded(self, words: Tensor, set_of_place: Tensor, distractors: Tensor) -> Tensor:
        """Candidates that are no negatives, bool (P, W + 1 + M): words the set does not label, and similar names."""
        none = len(self._lexicon.words)
        is_none = words == none
        similar = self._lexicon.not_negatives(words.clamp(max=none - 1), distractors)
        similar[is_none] = True  # background may show anything that ImageNet knows
        return torch.cat([~self._distinguished[set_of_place], similar[:, none:]], 1)


class DenseTraining(nn.Module):
    """The dense head with its loss.

    Args:
        head: the head that is trained.
        anchors: the untrained half of the mini model, whose logits are added.
    """

    def __init__(self, head: DenseHead, anchors: Anchors) -> None:
        super().__init__()
        self.head = head
        self._anchors = anchors
        self.none = nn.Parameter(0.05 * torch.randn(head.texts))
        self.scale = nn.Parameter(torch.tensor(2.3))

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The cross entropy of the drawn places of a batch of `DenseBatches`, "places"."""
        texts = torch.cat([batch["texts"], self.none[None], batch["distractors"]])
        logits = self.scale.exp() * self.embed_places(batch) @ texts.T
        if not len(logits):  # no place in these windows has a label
            return {"places": logits.sum()}
        logits = logits + self._anchor_logits(batch)
        return {"places": F.cross_entropy(logits.masked_fill(batch["excluded"], -1e4), batch["words"])}

    @torch.no_grad()
    def _anchor_logits(self, batch: Batch) -> Tensor:
        """The anchors' logits of the drawn places, (P, W + 1 + M), zero for "none of these"."""
        weights, words = batch["anchors"], len(batch["texts"])
        logits = self._anchors.logits(
            weights.movedim(1, -1).flatten(0, 2), torch.cat([batch["texts"], batch["distractors"]])
        )
        maps = logits.unflatten(0, (len(weights), *weights.shape[2:])).movedim(-1, 1)
        fine = batch[MAPS[0]].shape[2:]
        at_places = _interpolated(maps, fine, batch["places"])
        return torch.cat([at_places[:, :words], at_places.new_zeros(len(at_places), 1), at_places[:, words:]], 1)

    def embed_places(self, batch: Batch) -> Tensor:
        """Unit vectors (P, 384) of the drawn places of a batch of `DenseBatches`."""
        # Two windows at a time: blocks beyond 32 MB are cleared by the system whenever they are asked for again.
        levels = [batch[f"stride {stride}"].split(2) for stride in ImageTower.STRIDES]
        maps = torch.cat([self.head.maps(list(windows)) for windows in zip(*levels, strict=True)])
        return self.head.embed(maps.movedim(1, -1).flatten(0, 2)[batch["places"]])


def _interpolated(maps: Tensor, size: tuple[int, int], places: Tensor) -> Tensor:
    """Values (P, K) of maps (B, K, h, w) at some places, as if the maps were interpolated bilinearly to a finer grid.

    Args:
        maps: the maps.
        size: (H, W) of the finer grid.
        places: flat indices into the B finer grids, in ascending order of the grids, int64 (P,).
    """
    # Interpolation is linear: one row a place of the finer grid, one column a place of the coarse one.
    coarse = torch.eye(maps[0, 0].numel(), device=maps.device).unflatten(1, maps.shape[2:])
    matrix = F.interpolate(coarse[None], size, mode="bilinear")[0].flatten(1).T
    window, place = places // len(matrix), places % len(matrix)
    return torch.cat([matrix[place[window == number]] @ grid.flatten(1).T for number, grid in enumerate(maps)])


def _rows(source: LabelledSet, lexicon: Lexicon, none: int) -> Tensor:
    """The lexicon's row of each label: `none` for background, _UNLABELLED for other labels and, last, IGNORE, -1."""
    rows = lexicon.index(source.names)
    rows[~torch.tensor(source.training_classes)] = _UNLABELLED
    if source.dataset.background is not None:
        rows[source.dataset.background] = none
    return torch.cat([rows, torch.tensor([_UNLABELLED])])


def _draw_places(rows: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Flat indices of `count` labelled places, weighted by one over the square root of the frequency of their words."""
    labelled = (rows.flatten() != _UNLABELLED).nonzero()[:, 0]
    if not len(labelled):
        return labelled
    words = rows.flatten()[labelled]
    weights = torch.bincount(words)[words].float().rsqrt()
    return labelled[torch.multinomial(weights, count, replacement=True, generator=generator)]
