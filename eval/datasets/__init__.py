"""The benchmarks of the field, found wherever a known preparation has put them.

Detectron2's preparations here are those of OVSeg, SED and SAN, which differ in places; mmsegmentation's those of
TagCLIP and SegCLIP. The files they start from are read as well where that changes no number.
"""

from pathlib import Path

from eval import class_names
from eval.datasets import ade20k, cityscapes, coco, folder, pascal_context, pascal_voc
from eval.datasets.base import IGNORE, Dataset, DatasetError, Sample
from eval.datasets.layout import find
from eval.datasets.spec import Spec
from ovseg_demo.errors import VocabularyError
from ovseg_demo.vocabulary import Vocabulary

__all__ = ["DATASETS", "IGNORE", "TRAINING", "Dataset", "DatasetError", "Sample", "open", "spec"]

DATASETS: dict[str, Spec] = (
    ade20k.SPECS | pascal_context.SPECS | pascal_voc.SPECS | coco.SPECS | cityscapes.SPECS | folder.SPECS
)
"""Every benchmark by name."""

TRAINING: dict[str, Spec] = pascal_voc.TRAINING | coco.TRAINING
"""Splits to train on, by name."""


def spec(name: str) -> Spec:
    """What is known of a benchmark or a training split. Raises DatasetError for an unknown name, with those that there
    are."""
    known = DATASETS | TRAINING
    if name not in known:
        raise DatasetError(f"There is no dataset '{name}'; there are {', '.join(known)}.")
    return known[name]


def open(name: str, root: str | Path, vocabulary: str | None = None) -> Dataset:
    """A benchmark whose files are under `root`: the folder that holds the benchmark's folder, or that folder itself.

    Args:
        name: as in DATASETS.
        root: what is looked into for every known preparation.
        vocabulary: which wording of the class names, "ade20k_150.sed" or just its publisher, "sed"; see
            `class_names.variants`. None is the benchmark's default.

    Example:
        >>> dataset = open("folder", "my-photos")
        >>> dataset.vocabulary.names
        ('cat', 'wall')
        >>> dataset.load_labels(dataset.samples[0]).shape
        (6, 8)

    Raises DatasetError when the files are not there, with what was looked for and what was found, and VocabularyError
    for names that the benchmark does not have.
    """
    root, known = Path(root).expanduser(), spec(name)
    if known.publisher:
        words, rivals = _words(name, known, vocabulary)
    elif vocabulary is None:
        (known, words), rivals = folder.described(known, root), ()
    else:
        raise DatasetError("A folder's names are those of its classes.json; leave the vocabulary out.")
    layout, samples = find(name, known.layouts, root)
    seen = tuple(i for i in range(len(words)) if i not in known.unseen) if known.unseen else ()
    return Dataset(name, samples, words, layout.decode, known.background, seen, known.unseen, rivals)


def _words(name: str, known: Spec, vocabulary: str | None) -> tuple[Vocabulary, tuple[str, ...]]:
    """The names of the classes, and the rivals. Raises VocabularyError for names that the benchmark does not have."""
    variant = vocabulary or known.publisher
    variant = variant if "." in variant else f"{known.names}.{variant}"
    fitting = class_names.variants(known.names)
    if variant not in fitting:
        raise VocabularyError(f"'{vocabulary}' are no class names of {name}; there are {', '.join(fitting)}.")
    words = class_names.load(variant)
    if not known.rivals:
        return words, ()
    names, rivals = words.names[: -known.rivals], words.names[-known.rivals :]
    return Vocabulary((*names, "background"), (*words.synonyms[: len(names)], ())), rivals
