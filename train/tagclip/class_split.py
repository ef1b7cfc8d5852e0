"""Which classes of a labelled set are seen, and labels from which the others are gone."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

from eval.datasets.base import IGNORE
from ovseg_demo.vocabulary import comparison_key
from train.common.image_sets import LabelledSet
from train.common.labelled_batches import training_class_names
from train.common.run_folder import TrainingError


def seen_classes(found: Sequence[LabelledSet], unseen: Sequence[str], all_there: bool) -> list[tuple[bool, ...]]:
    """Of each set, whether each of its `taught_names` is seen: is none of the words `unseen`.

    Raises TrainingError when words are given but no set has any of them, or with `all_there` one of them; and when a
    set has no others or shows none of them.
    """
    known = {comparison_key(name) for source in found for name in training_class_names(source)}
    missing = [word for word in unseen if comparison_key(word) not in known]
    if all_there and missing:
        raise TrainingError(f"No set has a class of the name {', '.join(missing)}, which is to be unseen.")
    hidden = set(map(comparison_key, unseen))
    seen = [tuple(comparison_key(name) not in hidden for name in training_class_names(source)) for source in found]
    if unseen and all(map(all, seen)):
        told = ", ".join(unseen)
        raise TrainingError(f"No set has a class of the unseen ones ({told}); name others with --unseen.")
    for source, flags in zip(found, seen, strict=True):
        names = {name for name, flag in zip(training_class_names(source), flags, strict=True) if flag}
        shown = [index for index, name in enumerate(source.names) if name in names]
        if not any(np.isin(source.dataset.load_labels(sample), shown).any() for sample in source.dataset):
            raise TrainingError(f"No mask of {source.name} shows a seen class.")
    return seen


def hide_unseen(source: LabelledSet, seen: Sequence[bool], transductive: bool) -> LabelledSet:
    """A set whose labels do not tell pixels of unseen classes from background and from those without a label.

    From background neither: in a set that has it, what is left without a label would be little but the unseen.

    Args:
        source: the set.
        seen: as of `seen_classes`.
        transductive: whether all of these get the label of some unseen class, as pixels that self-training is to label;
            else IGNORE.
    """
    unseen = [name for name, flag in zip(training_class_names(source), seen, strict=True) if not flag]
    if not unseen:
        return source
    rows = [index for index, name in enumerate(source.names) if name in unseen]
    rows += [index for index, taught in enumerate(source.taught) if not taught]
    labels = np.append(np.arange(len(source.names), dtype=np.int32), np.int32(IGNORE))  # which is -1: the last
    labels[[*rows, -1]] = rows[0] if transductive else IGNORE
    return replace(source, dataset=replace(source.dataset, decode=partial(_decoded, source.dataset.decode, labels)))


def _decoded(decode: Callable[[Path], np.ndarray], labels: np.ndarray, path: Path) -> np.ndarray:
    return labels[decode(path)]
