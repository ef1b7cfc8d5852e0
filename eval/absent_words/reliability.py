"""How far probabilities can be trusted: of what is said to be 80 % sure, are 80 % right?"""

import numpy as np

from eval.metrics import mean, ratio

BINS = 15
"""Bins of equal width, as in Guo et al., "On Calibration of Modern Neural Networks" (ICML 2017)."""


class Reliability:
    """Statements by bins of their probability; bins of several photos add up.

    Args:
        sums: float64 (3, BINS): the number of statements, the sum of their probabilities, and how many were right. None
            for no statement.
    """

    def __init__(self, sums: np.ndarray | None = None) -> None:
        self.sums = np.zeros((3, BINS)) if sums is None else sums

    @classmethod
    def of(cls, probabilities: np.ndarray, right: np.ndarray) -> "Reliability":
        """Bins of some statements.

        Args:
            probabilities: floats (N,) in [0, 1].
            right: bool (N,), whether each statement was right.
        """
        places = np.minimum((probabilities * BINS).astype(np.intp), BINS - 1)
        weights = (np.ones(len(places)), probabilities, right)
        return cls(np.stack([np.bincount(places, each, BINS) for each in weights]))

    def __add__(self, other: "Reliability") -> "Reliability":
        return Reliability(self.sums + other.sums)

    def calibration_error(self) -> float:
        """Expected calibration error: how far the share of right statements is from their probability, in the mean.

        In [0, 1]; NaN without a statement. Guo et al., equation 5.
        """
        number, probabilities, right = self.sums
        return float(ratio(np.abs(right - probabilities).sum(), number.sum()))

    def points(self) -> list[list[float]]:
        """For each bin that is not empty: the number of statements, their mean probability, and the share right."""
        number, probabilities, right = self.sums[:, self.sums[0] > 0]
        return np.stack([number, probabilities / number, right / number], 1).tolist()


def average_precision(probabilities: np.ndarray, right: np.ndarray) -> float:
    """The mean of the precision at each right statement, in the order of the probabilities; NaN if none is right.

    Statements of equal probability are taken together, as scikit-learn does.

    Args:
        probabilities: floats (N,).
        right: bool (N,).
    """
    order = np.argsort(-probabilities, kind="stable")
    last_of_equal = np.flatnonzero(np.append(np.diff(probabilities[order]) != 0, True)[: len(order)])
    hits = right[order].cumsum()[last_of_equal]
    gained = np.diff(hits, prepend=0)
    return float(ratio((gained * hits / (last_of_equal + 1)).sum(), right.sum()))


def share(statements: np.ndarray) -> float:
    """The share of statements that are true, NaN when there is none."""
    return mean(statements.astype(float))
