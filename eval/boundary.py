"""Boundary IoU: how well outlines agree, where IoU is dominated by the inside of large regions.

Cheng et al., "Boundary IoU: Improving Object-Centric Image Segmentation Evaluation" (CVPR 2021): the IoU of what lies
inside each mask within a distance d of its contour, d being 2 % of the image diagonal. Here in its semantic form: the
mask of a class is all of its pixels, and counts are summed over the images before the ratio is taken, as for IoU.
"""

import cv2
import numpy as np

from eval.metrics import Counts, mean, ratio

DILATION_RATIO = 0.02
"""d as a share of the image diagonal; the paper's value."""

_INTERSECTION, _TRUTH, _PREDICTION = range(3)


class BoundaryCounts(Counts):
    """Boundary pixels of every class, counts (C, 3): of the intersection, of the ground truth, of the prediction.

    Args:
        classes: C, the number of classes.
    """

    def __init__(self, classes: int) -> None:
        super().__init__(classes, 3)

    def add(self, labels: np.ndarray, prediction: np.ndarray) -> None:
        """Count one image; ignored pixels belong to no mask of the ground truth or the prediction.

        Args:
            labels: integers (H, W), the ground truth in [0, C); negative where ignored.
            prediction: integers (H, W); values outside [0, C) are no class.
        """
        classes = len(self.counts)
        ignored = labels < 0
        truth = np.where(ignored, classes, labels)
        given = np.where(ignored | (prediction < 0) | (prediction >= classes), classes, prediction)
        distance = boundary_distance(labels.shape)
        edge, given_edge = boundary(truth, distance), boundary(given, distance)
        for column, pixels in (
            (_INTERSECTION, truth[edge & given_edge & (truth == given)]),
            (_TRUTH, truth[edge]),
            (_PREDICTION, given[given_edge]),
        ):
            self.counts[:, column] += np.bincount(pixels, minlength=classes + 1)[:classes]

    def iou(self) -> np.ndarray:
        """Boundary IoU of every class, float64 (C,); NaN for a class in neither ground truth nor prediction."""
        both, truth, given = self.counts.T
        return ratio(both, truth + given - both)

    def mean(self) -> float:
        """The mean over the classes in the ground truth; NaN when there is none."""
        return mean(self.iou()[self.counts[:, _TRUTH] > 0])


def boundary_distance(size: tuple[int, int]) -> int:
    """d in pixels for an image of size (H, W), at least 1."""
    return max(1, round(DILATION_RATIO * float(np.hypot(*size))))


def boundary(labels: np.ndarray, distance: int) -> np.ndarray:
    """The pixels whose mask ends within `distance` (in the maximum norm), bool (H, W).

    The paper erodes every mask `distance` times by 3 x 3 and keeps what vanishes, the image's edge being a contour
    too. A pixel vanishes exactly when the square of 2 distance + 1 pixels around it holds anything but its own label,
    which the smallest and the largest label of the square tell for all classes at once.

    Args:
        labels: integers (H, W) in [0, 65534).
        distance: in pixels.
    """
    planes = labels.astype(np.uint16) + np.uint16(1)
    square = np.ones((2 * distance + 1, 2 * distance + 1), np.uint8)
    lowest = cv2.erode(planes, square, borderType=cv2.BORDER_CONSTANT, borderValue=0)
    return lowest != cv2.dilate(planes, square)
