"""Training of the projection head: regions against their words, photos against their captions, and distillation.

Three losses. The embedding of a region must be nearer to its word than to the other training words and to ImageNet's
names, which stand for the words that are not in training. The embedding of a photo must be nearer to its caption than
to the captions of other photos (CLIP, Radford et al. 2021, figure 3). And the similarities of a view with the names of
the 1000 ImageNet classes must follow the logits of the frozen classifier (distillation).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ovseg_demo.models.mini.heads import ProjectionHead
from train.common.run_folder import TrainingError
from train.common.sampling import Batch
from train.mini.heads.features import ViewFeatures
from train.mini.lexicon import Lexicon

TEACHER_SCALE = 2.2
"""Sharpness of the classifier's standardised logits as a teacher."""

_SMOOTHING = 0.05


@dataclass(frozen=True)
class RegionBatchSizes:
    """The size of a batch: regions, photos with captions, and ImageNet names as distractors."""

    regions: int = 256
    captions: int = 256
    distractors: int = 300


@dataclass(frozen=True)
class RegionTargets:
    """N regions, or whole photos, and the word of each.

    Attributes:
        views: features of the views of the regions.
        words: the word of each region.
        weak: whether the words are weak labels: then the words of other regions may be right too, and only dissimilar
            ImageNet names are negatives.
    """

    views: ViewFeatures
    words: tuple[str, ...]
    weak: bool = False


class RegionBatches:
    """A `BatchSampler` of regions, rare words more often than their share, and of photos with captions.

    Args:
        targets: regions with words; regions whose word is not in the lexicon are left out.
        captions: features of photos, and the text embeddings of their captions, (N, T, D).
        lexicon: text embeddings of the words.
        sizes: the size of a batch.

    Raises:
        TrainingError: when no region is left.
    """

    def __init__(
        self,
        targets: Sequence[RegionTargets],
        captions: Sequence[tuple[ViewFeatures, Tensor]],
        lexicon: Lexicon,
        sizes: RegionBatchSizes,
    ) -> None:
        self._lexicon, self._sizes, self._captions = lexicon, sizes, captions
        flat = zip(*(_flat(target, lexicon) for target in targets), strict=True)
        self._features, self._logits, self._words, self._weak = map(torch.cat, flat)
        if not len(self._words):
            raise TrainingError("No region in the data has a word to be learnt.")
        counts = torch.bincount(self._words, minlength=len(lexicon.words)).float()
        self._weights = counts[self._words].rsqrt()

    @property
    def captioned(self) -> bool:
        return bool(self._captions)

    @property
    def features(self) -> Tensor:
        """All views of regions and the first of each photo with captions, float32 (M, features)."""
        return torch.cat([self._features, *(views.features[:, 0] for views, _ in self._captions)]).float()

    def __call__(self, generator: torch.Generator) -> Batch:
        chosen = torch.multinomial(self._weights, self._sizes.regions, replacement=True, generator=generator)
        texts = self._lexicon.draw(generator)
        distractors = torch.randperm(len(self._lexicon.imagenet), generator=generator)[: self._sizes.distractors]
        batch: Batch = {
            "features": self._features[chosen].float(),
            "logits": self._logits[chosen].float(),
            "words": self._words[chosen],
            "texts": torch.cat([texts, self._lexicon.imagenet[distractors]]),
            "not_negatives": self._not_negatives(chosen, distractors),
        }
        return {**batch, **self._captioned(generator)}

    def _not_negatives(self, chosen: Tensor, distractors: Tensor) -> Tensor:
        words, count = self._words[chosen], len(self._lexicon.words)
        others = torch.arange(count) != words[:, None]
        found = self._lexicon.not_negatives(words, distractors)
        found[:, :count] |= self._weak[chosen][:, None] & others
        return found

    def _captioned(self, generator: torch.Generator) -> Batch:
        if not self._captions:
            return {}
        views, texts = self._captions[int(torch.randint(len(self._captions), (), generator=generator))]
        count = min(self._sizes.captions, len(texts))
        photo = torch.randperm(len(texts), generator=generator)[:count]
        view = torch.randint(views.features.shape[1], (count,), generator=generator)
        caption = torch.randint(texts.shape[1], (count,), generator=generator)
        return {
            "photos": views.features[photo, view].float(),
            "photo_logits": views.logits[photo, view].float(),
            "captions": texts[photo, caption].float(),
        }


def _flat(target: RegionTargets, lexicon: Lexicon) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features, logits, rows of words and whether these are weak, of each view; sets differ in how many they have."""
    rows = lexicon.index(target.words)
    views, rows = target.views.only(rows >= 0), rows[rows >= 0]
    rows = rows.repeat_interleave(views.features.shape[1])
    weak = torch.full_like(rows, target.weak, dtype=torch.bool)
    return views.features.flatten(0, 1), views.logits.flatten(0, 1), rows, weak


class RegionTraining(nn.Module):
    """The head with its losses."""

    imagenet: Tensor

    def __init__(self, head: ProjectionHead, lexicon: Lexicon) -> None:
        super().__init__()
        self.head = head
        self.word_scale = nn.Parameter(torch.tensor(2.5))
        self.caption_scale = nn.Parameter(torch.tensor(3.0))
        self.register_buffer("imagenet", lexicon.imagenet, persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        embedded, scale = self.head(batch["features"]), self.word_scale.exp()
        logits = scale * embedded @ batch["texts"].T
        losses = {"words": smoothed_cross_entropy(logits, batch["words"], batch["not_negatives"])}
        teacher = batch["logits"]
        if "photos" in batch:
            photos = self.head(batch["photos"])
            losses["captions"] = contrastive_loss(photos, batch["captions"], self.caption_scale.exp())
            embedded, teacher = torch.cat([embedded, photos]), torch.cat([teacher, batch["photo_logits"]])
        losses["distillation"] = distillation_loss(scale * embedded @ self.imagenet.T, teacher)
        return losses


def smoothed_cross_entropy(logits: Tensor, right: Tensor, excluded: Tensor) -> Tensor:
    """Cross entropy with label smoothing (Szegedy et al. 2016, section 7), a mean over N regions.

    Args:
        logits: (N, C) of the candidate words.
        right: the right candidates, int64 (N,).
        excluded: bool (N, C), candidates that are left out of the softmax.
    """
    log_probabilities = logits.masked_fill(excluded, -torch.inf).log_softmax(1)
    own = log_probabilities.gather(1, right[:, None]).mean()
    mean = (log_probabilities.masked_fill(excluded, 0).sum(1) / (~excluded).sum(1)).mean()
    return -(1 - _SMOOTHING) * own - _SMOOTHING * mean


def contrastive_loss(photos: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
    """The symmetric loss of CLIP between unit vectors (N, D) and (N, D) of which equal rows belong together."""
    logits, own = scale * photos @ captions.T, torch.arange(len(photos), device=photos.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


def distillation_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """Divergence from the teacher's softmax, its logits (N, 1000) standardised within each row as for the anchors."""
    spread, mean = torch.std_mean(teacher, 1, keepdim=True)
    target = (TEACHER_SCALE * (teacher - mean) / spread).softmax(1)
    return F.kl_div(logits.log_softmax(1), target, reduction="batchmean")
