"""Open IoU: the IoU that gives a confusion the more credit the more similar the two classes are.

Zhou et al., "Rethinking Evaluation Metrics of Open-Vocabulary Segmentation" (arXiv 2311.03352; TPAMI 2025). With n_ij
pixels of class i that were given class j, and a similarity s_ij in [0, 1] of the two classes,

    TP_i = sum_j s_ij n_ij        FN_i = sum_j (1 - s_ij) n_ij        FP_i = sum_j (1 - s_ij) n_ji
    Open IoU_i = TP_i / (TP_i + FN_i + FP_i),

so that similarities of 1 on the diagonal and 0 elsewhere make the plain IoU. The paper compares eleven kinds of
similarities, from distances in WordNet to text embeddings and language models. Here they come from a text tower, see
`text_similarities`. So scores can be compared between methods and not with the paper: in WordNet, unrelated nouns are
hardly similar, but the median cosine of the mini text tower is 0.3 over the names of PASCAL VOC and of COCO-Stuff.
"""

from dataclasses import dataclass

import numpy as np

from eval.datasets.base import Dataset
from eval.metrics import GROUND_TRUTH, UNION, Confusion, mean, ratio
from ovseg_demo.models.base import TextEncoder

MODEL = "mini"
"""The model whose text tower tells the similarities in reports."""


@dataclass(frozen=True)
class Similarities:
    """How similar the classes of a benchmark are.

    Attributes:
        matrix: float64 (C, C) in [0, 1], symmetric, 1 on its diagonal.
        source: where the similarities come from, one sentence for reports.
    """

    matrix: np.ndarray
    source: str


def open_iou(confusion: Confusion, similarities: np.ndarray) -> tuple[np.ndarray, dict[str, float]]:
    """Open IoU of every class, and Open mIoU.

    Pixels that were given no class are false negatives in full.

    Args:
        confusion: counts of C classes.
        similarities: float64 (C, C) in [0, 1], with 1 on the diagonal.

    Returns:
        The Open IoU, float64 (C,), NaN where its denominator is 0; and the means by rule, a key of `metrics.RULES`.

    Raises:
        ValueError: when the similarities are not (C, C).
    """
    counts = confusion.counts[:, :-1]
    if similarities.shape != counts.shape:
        raise ValueError(f"similarities are {similarities.shape}, the counts {counts.shape}")
    pixels = confusion.counts.sum(1)
    hits = (similarities * counts).sum(1)
    false_positives = ((1 - similarities) * counts).sum(0)
    iou = ratio(hits, pixels + false_positives)  # every pixel of a class is a hit or a false negative
    return iou, {GROUND_TRUTH: mean(iou[pixels > 0]), UNION: mean(iou)}


def text_similarities(dataset: Dataset, encoder: TextEncoder) -> Similarities:
    """The similarities of the classes of a benchmark by their text embeddings.

    The similarity of two classes is the cosine of their embeddings, and 0 where that is negative. A class with
    synonyms is as similar to another as the closest pair of their words, because any of its words may be what another
    data set, or a person, calls it. The background, which means none of the other classes, is similar to none.

    Args:
        dataset: the benchmark.
        encoder: embeds its words.
    """
    classes = len(dataset.vocabulary)
    words = [(index, word) for index, word in dataset.vocabulary.words() if index != dataset.background]
    embeddings = encoder.embed_texts([word for _, word in words]).double().cpu().numpy()
    embeddings /= np.linalg.norm(embeddings, axis=1, keepdims=True)
    cosines = (embeddings @ embeddings.T).clip(0, 1)
    matrix = np.zeros((classes, classes))
    rows = np.array([index for index, _ in words], np.intp)
    np.maximum.at(matrix, (rows[:, None], rows[None, :]), cosines)
    np.fill_diagonal(matrix, 1)
    source = f"cosines of the text embeddings of {encoder.name}, of a class's closest word where it has synonyms"
    return Similarities(matrix, source)
