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
"""Label smoothing: the share of the target that is spread evenly over the candidates."""


@dataclass(frozen=True)
class RegionBatchSizes:
    """The size of a batch.

    Attributes:
        regions: number of regions.
        captions: number of photos with captions.
        distractors: number of ImageNet names that are negatives.
    """

    regions: int = 256
    captions: int = 256
    distractors: int = 300


@dataclass(frozen=True)
class RegionTargets:
    """N regions or whole photos, with the word of each.

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
    """A `BatchSampler` of views of regions, and of photos with captions.

    Regions are weighted by one over the square root of the frequency of their words. A batch has of R regions
    "features" (R, 1280), "logits" (R, 1000), "words", int64 (R,), rows of "texts" (W + M, 384), the words and M
    distractors, and "not_negatives", bool (R, W + M); and of K photos, if any have captions, "photos" (K, 1280),
    "photo_logits" (K, 1000) and "captions" (K, 384).

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
        """Whether there are photos with captions."""
        return bool(self._captions)

    @property
    def features(self) -> Tensor:
        """Features of all views of regions, and of the first view of each photo with captions, float32 (M, 1280)."""
        return torch.cat([self._features, *(views.features[:, 0] for views, _ in self._captions)]).float()

    def __call__(self, generator: torch.Generator) -> Batch:
        regions = torch.multinomial(self._weights, self._sizes.regions, replacement=True, generator=generator)
        texts = self._lexicon.draw(generator)
        distractors = torch.randperm(len(self._lexicon.imagenet), generator=generator)[: self._sizes.distractors]
        batch: Batch = {
            "features": self._features[regions].float(),
            "logits": self._logits[regions].float(),
            "words": self._words[regions],
            "texts": torch.cat([texts, self._lexicon.imagenet[distractors]]),
            "not_negatives": self._not_negatives(regions, distractors),
        }
        return {**batch, **self._draw_captions(generator)}

    def _not_negatives(self, regions: Tensor, distractors: Tensor) -> Tensor:
        words, count = self._words[regions], len(self._lexicon.words)
        other_words = torch.arange(count) != words[:, None]
        not_negatives = self._lexicon.not_negatives(words, distractors)
        not_negatives[:, :count] |= self._weak[regions][:, None] & other_words
        return not_negatives

    def _draw_captions(self, generator: torch.Generator) -> Batch:
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
    """For each view of each region: features, logits, the row of the word, and whether the word is a weak label."""
    rows = lexicon.index(target.words)
    views, rows = target.views.select(rows >= 0), rows[rows >= 0]
    rows = rows.repeat_interleave(views.features.shape[1])
    weak = torch.full_like(rows, target.weak, dtype=torch.bool)
    return views.features.flatten(0, 1), views.logits.flatten(0, 1), rows, weak


class RegionTraining(nn.Module):
    """The projection head with its losses.

    Args:
        head: the head that is trained.
        lexicon: has the text embeddings of the ImageNet names, for distillation.
    """

    imagenet: Tensor

    def __init__(self, head: ProjectionHead, lexicon: Lexicon) -> None:
        super().__init__()
        self.head = head
        self.word_scale = nn.Parameter(torch.tensor(2.5))
        self.caption_scale = nn.Parameter(torch.tensor(3.0))
        self.register_buffer("imagenet", lexicon.imagenet, persistent=False)

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        """The losses of a batch of `RegionBatches`: "words", "distillation" and, with captions, "captions"."""
        embeddings, scale = self.head(batch["features"]), self.word_scale.exp()
        logits = scale * embeddings @ batch["texts"].T
        losses = {"words": smoothed_cross_entropy(logits, batch["words"], batch["not_negatives"])}
        teacher = batch["logits"]
        if "photos" in batch:
            photos = self.head(batch["photos"])
            losses["captions"] = contrastive_loss(photos, batch["captions"], self.caption_scale.exp())
            embeddings, teacher = torch.cat([embeddings, photos]), torch.cat([teacher, batch["photo_logits"]])
        losses["distillation"] = distillation_loss(scale * embeddings @ self.imagenet.T, teacher)
        return losses


def smoothed_cross_entropy(logits: Tensor, right: Tensor, excluded: Tensor) -> Tensor:
    """Cross entropy with label smoothing (Szegedy et al. 2016, section 7), a mean over N regions.

    Args:
        logits: logits of C candidate words, (N, C).
        right: index of the right candidate, int64 (N,).
        excluded: candidates that are left out of the softmax, bool (N, C).
    """
    log_probabilities = logits.masked_fill(excluded, -torch.inf).log_softmax(1)
    of_right = log_probabilities.gather(1, right[:, None]).mean()
    mean = (log_probabilities.masked_fill(excluded, 0).sum(1) / (~excluded).sum(1)).mean()
    return -(1 - _SMOOTHING) * of_right - _SMOOTHING * mean


def contrastive_loss(photos: Tensor, captions: Tensor, scale: Tensor) -> Tensor:
    """The symmetric contrastive loss of CLIP (Radford et al. 2021, figure 3), a scalar.

    Args:
        photos: unit vectors of photos, (N, D).
        captions: unit vectors of the captions of these photos, (N, D).
        scale: factor on cosines, a scalar.
    """
    logits, pairs = scale * photos @ captions.T, torch.arange(len(photos), device=photos.device)
    return (F.cross_entropy(logits, pairs) + F.cross_entropy(logits.T, pairs)) / 2


def distillation_loss(logits: Tensor, teacher: Tensor) -> Tensor:
    """The Kullback-Leibler divergence from the teacher's softmax, a mean over N views.

    Args:
        logits: scaled cosines with the ImageNet names, (N, 1000).
        teacher: logits of the classifier, (N, 1000), which are standardised within each row as for the anchors.
    """
    spread, mean = torch.std_mean(teacher, 1, keepdim=True)
    target = (TEACHER_SCALE * (teacher - mean) / spread).softmax(1)
    return F.kl_div(logits.log_softmax(1), target, reduction="batchmean")
