"""What the classifier knows, carried to any words without training.

The names of the 1000 ImageNet classes, and common concepts that several of the classes speak for, are anchors in the
text space. For each region, kernel ridge regression carries the scores from the anchors to every other text.
checkpoints/MODEL_CARD.md has the formula and the measurements.
"""

import torch
from torch import Tensor

from ovseg_demo.weights import loading

SHARPNESS = 6.0
"""A concept scores as a soft maximum over its evidence; infinity would be the maximum, 0 the mean."""

LOGIT_SCALE = 1.5
"""Makes the softmax over a handful of words roughly calibrated (chosen on coco_train, see the model card)."""


class Anchors:
    """A anchors: 1000 classes and C concepts. Raises CheckpointError when their file is missing or damaged."""

    def __init__(self, device: str | torch.device) -> None:
        stored = loading.load_state_dict("mini-anchors")
        embeddings = stored["embeddings"].float()
        smoother = torch.linalg.inv(_kernel(embeddings, embeddings) + torch.eye(len(embeddings)))
        self._embeddings, self._smoother = embeddings.to(device), smoother.to(device)
        self._evidence = stored["evidence"].bool().to(device)

    def __len__(self) -> int:
        return len(self._embeddings)

    def weights(self, classes: Tensor) -> Tensor:
        """Weights (N, A) of the anchors in each region's regression, from class logits (N, 1000)."""
        return anchor_scores(classes, self._evidence) @ self._smoother

    def logits(self, weights: Tensor, texts: Tensor) -> Tensor:
        """The regressions (N, A) at each text (K, D), scaled: (N, K)."""
        return LOGIT_SCALE * weights @ _kernel(self._embeddings, texts)


def anchor_scores(classes: Tensor, evidence: Tensor) -> Tensor:
    """What each region says about each anchor: the classes' own scores, then the concepts'.

    Args:
        classes: logits of the image tower, (N, 1000); standardised here within each region, because an unsure
            tower flattens all of them.
        evidence: bool (C, 1000), the classes that speak for each concept.

    Returns:
        (N, 1000 + C); a concept scores log-mean-exp of its evidence, in standard deviations.
    """
    spread, mean = torch.std_mean(classes, 1, keepdim=True)
    standard = (classes - mean) / spread
    highest = standard.amax(1, keepdim=True)
    # One product for all concepts: thirty times as fast as a logsumexp over each one's evidence. A standardised logit
    # lies at most 32 above another, of 1000, so no sum of these exponentials vanishes in double precision.
    summed = (SHARPNESS * (standard - highest)).double().exp() @ evidence.double().T
    concepts = highest + ((summed.log() - evidence.sum(1).log()) / SHARPNESS).to(standard)
    return torch.cat([standard, concepts], 1)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """Gaussian kernel exp(-|a - b|²) between unit vectors (M, D) and (K, D), as (M, K)."""
    return (2 * (a @ b.T - 1)).exp()
