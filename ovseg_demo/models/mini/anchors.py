"""Open-vocabulary logits from an ImageNet classifier without training.

The text embeddings of the names of the 1000 ImageNet classes, and of common concepts for which several of these classes
are evidence, are anchors in the text space. For each region, kernel ridge regression extends the scores of the anchors
to every other text. checkpoints/MODEL_CARD.md has the formula and the measurements.
"""

import torch
from torch import Tensor

from ovseg_demo.models.mini.towers import ImageTower
from ovseg_demo.weights import loading

ANCHORS = 1275
"""Number of anchors in the bundled file."""

SHARPNESS = 6.0
"""The score of a concept is a soft maximum over its evidence; infinity would be the maximum, 0 the mean."""

LOGIT_SCALE = 1.5
"""Makes the softmax over a handful of words roughly calibrated (chosen on coco_train, see the model card)."""


class Anchors:
    """The A anchors, 1000 classes and C concepts, and their regression.

    Args:
        device: where the regression runs.

    Raises:
        CheckpointError: when the file of the anchors is missing or damaged.
    """

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

    def weights_of_map(self, tower: ImageTower, last: Tensor) -> Tensor:
        """Weights of the anchors at every place, (B, A, h, w), of the image tower's maps at stride 32, (B, C, h, w)."""
        weights = self.weights(tower.class_logits(last.movedim(1, -1).flatten(0, 2)))
        return weights.unflatten(0, (len(last), *last.shape[2:])).movedim(-1, 1)

    def logits(self, weights: Tensor, texts: Tensor) -> Tensor:
        """Logits (N, K): the regressions with weights (N, A), evaluated at unit text embeddings (K, D) and scaled."""
        return LOGIT_SCALE * weights @ _kernel(self._embeddings, texts)


def anchor_scores(classes: Tensor, evidence: Tensor) -> Tensor:
    """Scores of the anchors in each region: first of the classes, then of the concepts.

    Args:
        classes: class logits of the image tower, (N, 1000). They are standardised within each region, because all
            logits are small where the tower is unsure.
        evidence: bool (C, 1000), the classes that are evidence for each concept.

    Returns:
        (N, 1000 + C), in standard deviations; the score of a concept is the log-mean-exp of its evidence.
    """
    spread, mean = torch.std_mean(classes, 1, keepdim=True)
    standard = (classes - mean) / spread
    highest = standard.amax(1, keepdim=True)
    # One product for all concepts is thirty times as fast as a logsumexp for each concept. Of 1000 standardised logits
    # none lies more than 32 above another, so no sum of these exponentials vanishes in double precision.
    summed = (SHARPNESS * (standard - highest)).double().exp() @ evidence.double().T
    concepts = highest + ((summed.log() - evidence.sum(1).log()) / SHARPNESS).to(standard)
    return torch.cat([standard, concepts], 1)


def _kernel(a: Tensor, b: Tensor) -> Tensor:
    """Gaussian kernel exp(-|a - b|²) between unit vectors (M, D) and (K, D), as (M, K)."""
    return (2 * (a @ b.T - 1)).exp()
