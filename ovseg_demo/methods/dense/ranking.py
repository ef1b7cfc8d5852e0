"""The best classes of each pixel after refinement, found in groups of classes.

The refined scores of a thousand classes at the pixels of a photo take gigabytes. After each group only the best
classes, their scores and the sum over all classes are kept, which are all that a `Segmentation` needs.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ovseg_demo.methods.dense import pamr
from ovseg_demo.methods.dense.scores import PixelScores, best_words, word_scores
from ovseg_demo.proposals.base import Report
from ovseg_demo.result import TOP, Segmentation
from ovseg_demo.runtime.worker_pool import WorkerPool, worker_pool

_CLASSES_AT_ONCE = _WORDS_AT_ONCE = 8  # of all workers together


@dataclass(frozen=True)
class Ranking:
    """The best of C classes at the pixels of a photo.

    Attributes:
        classes: int64 (K, H, W), the K <= TOP best classes, best first.
        scores: float32 (K, H, W), the scores of these classes.
        total: float32 (H, W), the sum of the scores of all classes.
    """

    classes: Tensor
    scores: Tensor
    total: Tensor

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in (self.classes, self.scores, self.total))

    def segmentation(self, names: tuple[str, ...]) -> Segmentation:
        """The result: a pixel's confidence is the share of its class's score in the total, as in `filled`."""
        best, shares = self.classes.cpu().numpy().astype("int32"), (self.scores / self.total).cpu().numpy()
        return Segmentation(names, best[0], shares[0], best, shares)


@torch.inference_mode()
def refined_ranking(scores: PixelScores, image: Tensor, report: Report) -> Ranking:
    """The best classes after PAMR has refined the cosines of every word.

    Args:
        scores: of K words of C classes, the words in the order of the classes.
        image: normalised pixels of the photo, float32 (3, H, W), at the size of `scores`.
        report: called with the share of the classes that are done, in (0, 1].
    """
    weights = pamr.affinities(image)
    total = image.new_zeros(scores.size)
    best = image.new_empty(0, *scores.size)
    classes = torch.empty_like(best, dtype=torch.long)
    count = scores.classes
    groups = [range(start, min(start + _CLASSES_AT_ONCE, count)) for start in range(0, count, _CLASSES_AT_ONCE)]
    with worker_pool(image.device) as workers:
        for group in groups:
            refined = _refined_classes(scores, group, weights, workers)
            total += refined.sum(0)
            indices = torch.arange(group.start, group.stop, device=image.device).view(-1, 1, 1).expand_as(refined)
            candidates, of_candidates = torch.cat([best, refined]), torch.cat([classes, indices])
            best, order = candidates.topk(min(TOP, len(candidates)), 0)
            classes = of_candidates.gather(0, order)
            report(group.stop / count)
    return Ranking(classes, best, total)


def _refined_classes(scores: PixelScores, group: range, weights: Tensor, workers: WorkerPool) -> Tensor:
    """The refined scores of a group of classes, (len(group), H, W); their words are refined a few at once."""
    indices = scores.class_indices
    words = ((indices >= group.start) & (indices < group.stop)).nonzero()[:, 0]
    found = weights.new_zeros(len(group), *scores.size)

    def refined(some: Tensor) -> Tensor:
        return word_scores(pamr.refine(scores.cosines(slice(None), some), weights))

    for some in words.split(_WORDS_AT_ONCE):
        of_words = torch.cat(workers.map(refined, workers.chunks(some)))
        found = torch.maximum(found, best_words(of_words, indices[some] - group.start, len(group)))
    return found
