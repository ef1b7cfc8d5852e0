"""The split of the classes of a labelled set into seen and unseen, and labels from which unseen classes are removed."""

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


def seen_classes(sets: Sequence[LabelledSet], unseen: Sequence[str], all_there: bool) -> list[tuple[bool, ...]]:
    """For each set, whether each of its `training_class_names` is seen.

    Args:
        sets: the sets.
        unseen: names of the unseen classes; empty if all classes are seen.
        all_there: whether every unseen class must be in some set, rather than one of them.

    Raises:
        TrainingError: when the sets lack the unseen classes, or no photo of a set shows a seen class.
    """
    known = {comparison_key(name) for source in sets for name in training_class_names(source)}
    missing = [word for word in unseen if comparison_key(word) not in known]
    if all_there and missing:
        raise TrainingError(f"No set has a class of the name {', '.join(missing)}, which is to be unseen.")
    unseen_keys = set(map(comparison_key, unseen))
    seen = [tuple(comparison_key(name) not in unseen_keys for name in training_class_names(source)) for source in sets]
    if unseen and all(map(all, seen)):
        words = ", ".join(unseen)
        raise TrainingError(f"No set has a class of the unseen ones ({words}); name others with --unseen.")
    for source, flags in zip(sets, seen, strict=True):
        names = {name for name, flag in zip(training_class_names(source), flags, strict=True) if flag}
        shown = [index for index, name in enumerate(source.names) if name in names]
        if not any(np.isin(source.dataset.load_labels(sample), shown).any() for sample in source.dataset):
            raise TrainingError(f"No mask of {source.name} shows a seen class.")
    return seen


def hide_unseen(source: LabelledSet, seen: Sequence[bool], transductive: bool) -> LabelledSet:
    """A set whose labels do not distinguish unseen classes, background and pixels without a label.

    Background is included because in a set that has it, nearly all pixels without a label would be of unseen classes.

    Args:
        source: the set.
        seen: flags of the set from `seen_classes`.
        transductive: whether all of these pixels get the label of one unseen class, since self-training replaces the
            label of every such pixel; otherwise they get IGNORE.
    """
    unseen = [name for name, flag in zip(training_class_names(source), seen, strict=True) if not flag]
    if not unseen:
        return source
    rows = [index for index, name in enumerate(source.names) if name in unseen]
    rows += [index for index, trained in enumerate(source.training_classes) if not trained]
    labels = np.append(np.arange(len(source.names), dtype=np.int32), np.int32(IGNORE))  # which is -1: the last
    labels[[*rows, -1]] = rows[0] if transductive else IGNORE
    return replace(source, dataset=replace(source.dataset, decode=partial(_decoded, source.dataset.decode, labels)))


def _decoded(decode: Callable[[Path], np.ndarray], labels: np.ndarray, path: Path) -> np.ndarray:
    return labels[decode(path)]
