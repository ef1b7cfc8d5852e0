"""What a batch is asked for, and what counts as unseen in it.

Inductive training asks for the seen classes, transductive training for all of them. Published inductive training of
the trusty map reads where pixels of unseen classes are, though not which classes they are. The strict protocol does
not: unseen pixels are gone from the labels before a photo is cut (`class_split.hide_unseen`), and in every step a
quarter of the seen classes in the batch stand in for unseen ones. Their words are not asked for, their pixels belong
to none of the other classes, and they are what the trusty map is to find; what is left counts as seen.
"""

import torch
from torch import Tensor

from eval.datasets.base import IGNORE
from ovseg_demo.methods.tagclip.scores import SEEN_PENALTY, enlarge
from train.tagclip.losses import UNSEEN

_PSEUDO_UNSEEN_SHARE = 0.25
"""The share of unseen classes: 5 of 20 in VOC."""


def draw_pseudo_unseen(labels: Tensor) -> Tensor:
    """The classes of labels, int64, that stand in for unseen ones this time, int64 (K,), drawn from torch's generator.

    A quarter of the classes that are there, at least one; none where there is but one class, which stays.
    """
    there = labels.unique()
    there = there[there >= 0]
    if len(there) < 2:
        return there[:0]
    drawn = torch.randperm(len(there))[: max(1, round(_PSEUDO_UNSEEN_SHARE * len(there)))]
    return there[drawn.to(there.device)]


def relabel(labels: Tensor, asked: Tensor, classes: int) -> Tensor:
    """Labels of C classes, int64 (...), as rows of those that are asked for, int64 (K,); UNSEEN for the others.

    What is negative stays.
    """
    rows = torch.full((classes,), UNSEEN, device=labels.device)
    rows[asked] = torch.arange(len(asked), device=labels.device)
    return torch.where(labels < 0, labels, rows[labels.clamp(min=0)])


@torch.no_grad()
def pseudo_label(logits: Tensor, labels: Tensor, seen: Tensor, strict: bool) -> Tensor:
    """Labels with the model's own for pixels of unseen classes, int64 (B, H, W): self-training, as in ZegCLIP.

    As published, such a pixel takes that of the unseen classes which has the highest mask there. With `strict` the
    labels do not say which of the pixels without a label are of an unseen class (`class_split.hide_unseen`): the pixel
    takes the best of all classes, as at inference after inductive training, if that is an unseen one; else it has
    IGNORE.

    Args:
        logits: of the masks of all classes (B, C, h, w).
        labels: int64 (B, H, W), where those of unseen classes are to be replaced, whichever they are.
        seen: bool (C,).
        strict: see above.
    """
    if seen.all():
        return labels
    best = [_best(each, labels.shape[1:], seen, among_all=strict) for each in logits.float()]
    hidden = (labels >= 0) & ~seen[labels.clamp(min=0)]
    return torch.where(hidden, torch.stack(best), labels)


def _best(logits: Tensor, size: torch.Size, seen: Tensor, among_all: bool) -> Tensor:
    """The best unseen class of each pixel of one image, int64 (H, W); IGNORE where a seen one is better and counts."""
    if among_all:
        masks = enlarge(logits, size).sigmoid() - SEEN_PENALTY * seen[:, None, None]
        best = masks.argmax(0)
        return torch.where(seen[best], IGNORE, best)
    unseen = (~seen).nonzero()[:, 0]
    return unseen[enlarge(logits[unseen], size).argmax(0)]
