"""The classes that a batch is prompted with, and the pixels that count as unseen in it.

Inductive training prompts the decoder with the seen classes, transductive training with all of them. Published
inductive training of the trusty map reads where pixels of unseen classes are, though not which classes they are. The
strict protocol does not: unseen pixels are removed from the labels before a photo is cropped
(`class_split.hide_unseen`), and in every step a quarter of the seen classes in the batch are pseudo-unseen: the decoder
is not prompted with their words, their pixels are negatives of all other classes, and they are the target of the trusty
map. All other pixels count as seen.
"""

import torch
from torch import Tensor

from eval.datasets.base import IGNORE
from ovseg_demo.methods.tagclip.scores import SEEN_PENALTY, enlarge
from train.tagclip.losses import UNSEEN

_PSEUDO_UNSEEN_SHARE = 0.25
"""The share of unseen classes: 5 of 20 in VOC."""


def draw_pseudo_unseen(labels: Tensor) -> Tensor:
    """The pseudo-unseen classes of a batch, int64 (K,), drawn from torch's global generator.

    They are a quarter of the classes in the labels, at least one; a single class is never pseudo-unseen.

    Args:
        labels: int64 of any shape; negative where a pixel has no class.
    """
    present = labels.unique()
    present = present[present >= 0]
    if len(present) < 2:
        return present[:0]
    drawn = torch.randperm(len(present))[: max(1, round(_PSEUDO_UNSEEN_SHARE * len(present)))]
    return present[drawn.to(present.device)]


def relabel(labels: Tensor, prompted: Tensor, classes: int) -> Tensor:
    """Labels as rows of the prompted classes, int64 of the same shape; UNSEEN for classes that are not prompted.

    Args:
        labels: int64 of any shape, below C; negative labels stay.
        prompted: int64 (K,), the classes whose words the decoder gets.
        classes: C, how many classes there are.
    """
    rows = torch.full((classes,), UNSEEN, device=labels.device)
    rows[prompted] = torch.arange(len(prompted), device=labels.device)
    return torch.where(labels < 0, labels, rows[labels.clamp(min=0)])


@torch.no_grad()
def pseudo_label(logits: Tensor, labels: Tensor, seen: Tensor, strict: bool) -> Tensor:
    """Labels in which the model's predictions replace those of unseen classes, int64 (B, H, W).

    This is the self-training of ZegCLIP (Zhou et al., CVPR 2023). As published, a pixel of an unseen class gets the
    unseen class with the highest mask logit. With `strict` the labels do not say which pixels without a label are of
    an unseen class (`class_split.hide_unseen`): a pixel gets the best of all classes, as at inference after inductive
    training, if that class is unseen, and IGNORE otherwise.

    Args:
        logits: mask logits of all classes, (B, C, h, w).
        labels: int64 (B, H, W), in which every label of an unseen class is replaced.
        seen: bool (C,), whether each class is seen.
        strict: whether the labels were made by `hide_unseen`.
    """
    if seen.all():
        return labels
    best = [_best(image, labels.shape[1:], seen, among_all=strict) for image in logits.float()]
    hidden = (labels >= 0) & ~seen[labels.clamp(min=0)]
    return torch.where(hidden, torch.stack(best), labels)


def _best(logits: Tensor, size: torch.Size, seen: Tensor, among_all: bool) -> Tensor:
    """The best unseen class of each pixel of one image, int64 (H, W); IGNORE where a seen class is better."""
    if among_all:
        masks = enlarge(logits, size).sigmoid() - SEEN_PENALTY * seen[:, None, None]
        best = masks.argmax(0)
        return torch.where(seen[best], IGNORE, best)
    unseen = (~seen).nonzero()[:, 0]
    return unseen[enlarge(logits[unseen], size).argmax(0)]
