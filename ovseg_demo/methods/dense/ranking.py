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
from ovseg_demo.result import TOP, UNLABELLED, Segmentation
from ovseg_demo.runtime.worker_pool import WorkerPool, worker_pool

_CLASSES_AT_ONCE = _WORDS_AT_ONCE = 8  # of all workers together


@dataclass(frozen=True)
class Ranking:
    """The best of C classes at the pixels of a photo.

    Attributes:
        classes: int64 (K, H, W), the K <= TOP best classes that may be drawn, best first.
        scores: float32 (K, H, W), the scores of these classes.
        background: float32 (H, W), the best score of the classes that are never drawn; 0 where there is none.
        total: float32 (H, W), the sum of the scores of all classes.
    """

    classes: Tensor
    scores: Tensor
    background: Tensor
    total: Tensor

    @property
    def nbytes(self) -> int:
        return sum(each.nbytes for each in (self.classes, self.scores, self.background, self.total))

    def segmentation(self, names: tuple[str, ...]) -> Segmentation:
        """The result: a pixel's confidence is the share of its class's score in the total, as in `filled`."""
        drawn, shares = self.scores[0] >= self.background, self.scores / self.total
        planes = torch.where(drawn, self.classes[0], UNLABELLED), torch.where(drawn, shares[0], 0)
        labels, scores, best, best_scores = (plane.cpu().numpy() for plane in (*planes, self.classes, shares))
        return Segmentation(names, labels.astype("int32"), scores, best.astype("int32"), best_scores)


@torch.inference_mode()
def refined_ranking(scores: PixelScores, image: Tensor, drawn: int, report: Report) -> Ranking:
    """The best classes after PAMR has refined the cosines of every word.

    Args:
        scores: of K words of C classes, the words in the order of the classes.
        image: normalised pixels of the photo, float32 (3, H, W), at the size of `scores`.
        drawn: the number of classes that may be drawn; those after them are background classes.
        report: called with the share of the classes that are done, in (0, 1].
    """
    weights = pamr.affinities(image)
    background, total = (image.new_zeros(scores.size) for _ in range(2))
    best = image.new_empty(0, *scores.size)
    classes = torch.empty_like(best, dtype=torch.long)
    groups = [range(start, min(start + _CLASSES_AT_ONCE, drawn)) for start in range(0, drawn, _CLASSES_AT_ONCE)]
    groups += [range(index, index + 1) for index in range(drawn, scores.classes)]
    with worker_pool(image.device) as workers:
        for group in groups:
            refined = _refined_classes(scores, group, weights, workers)
            total += refined.sum(0)
            if group.start >= drawn:
                background = torch.maximum(background, refined.amax(0))
            else:
                indices = torch.arange(group.start, group.stop, device=image.device).view(-1, 1, 1).expand_as(refined)
                known, candidates = torch.cat([best, refined]), torch.cat([classes, indices])
                best, order = known.topk(min(TOP, len(known)), 0)
                classes = candidates.gather(0, order)
            report(group.stop / scores.classes)
    return Ranking(classes, best, background, total)


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
