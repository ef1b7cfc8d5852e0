"""The benchmarks of the field, in the folders and file formats of every known preparation.

OVSeg, SED and SAN prepare benchmarks for Detectron2, with small differences; TagCLIP and SegCLIP prepare them for
mmsegmentation. The published files that preparations start from are read as well where that changes no score.
"""

from pathlib import Path

from eval import class_names
from eval.datasets import ade20k, cityscapes, coco, folder, pascal_context, pascal_voc
from eval.datasets.base import IGNORE, Dataset, DatasetError, Sample
from eval.datasets.layout import find_samples
from eval.datasets.spec import Spec
from ovseg_demo.errors import VocabularyError
from ovseg_demo.vocabulary import Vocabulary

__all__ = ["DATASETS", "IGNORE", "TRAINING", "Dataset", "DatasetError", "Sample", "get_spec", "open_dataset"]

DATASETS: dict[str, Spec] = (
    ade20k.SPECS | pascal_context.SPECS | pascal_voc.SPECS | coco.SPECS | cityscapes.SPECS | folder.SPECS
)
"""Every benchmark by name."""

TRAINING: dict[str, Spec] = pascal_voc.TRAINING | coco.TRAINING
"""Splits to train on, by name."""


def get_spec(name: str) -> Spec:
    """The specification of a benchmark or training split. Raises DatasetError, with all names, for an unknown name."""
    known = DATASETS | TRAINING
    if name not in known:
        raise DatasetError(f"There is no dataset '{name}'; there are {', '.join(known)}.")
    return known[name]


def open_dataset(name: str, root: str | Path, vocabulary: str | None = None) -> Dataset:
    """A benchmark whose files are under `root`: the folder that holds the benchmark's folder, or that folder itself.

    Args:
        name: a key of DATASETS or TRAINING.
        root: folder that is searched for every known preparation.
        vocabulary: wording of the class names, "ade20k_150.sed" or just its publisher, "sed"; see
            `class_names.variants`. None is the benchmark's default.

    Example:
        >>> dataset = open_dataset("folder", "my-photos")
        >>> dataset.vocabulary.names
        ('cat', 'wall')
        >>> dataset.load_labels(dataset.samples[0]).shape
        (6, 8)

    Raises:
        DatasetError: when the files are not there; it tells what was looked for and what was found.
        VocabularyError: for a wording that the benchmark does not have.
    """
    root, spec = Path(root).expanduser(), get_spec(name)
    if spec.publisher:
        words, rivals = _words(name, spec, vocabulary)
    elif vocabulary is None:
        (spec, words), rivals = folder.complete_spec(spec, root), ()
    else:
        raise DatasetError("A folder's names are those of its classes.json; leave the vocabulary out.")
    layout, samples = find_samples(name, spec.layouts, root)
    seen = tuple(i for i in range(len(words)) if i not in spec.unseen) if spec.unseen else ()
    return Dataset(name, samples, words, layout.decode, spec.background, seen, spec.unseen, rivals)


def _words(name: str, spec: Spec, vocabulary: str | None) -> tuple[Vocabulary, tuple[str, ...]]:
    """The class names and the rivals. Raises VocabularyError for a wording that the benchmark does not have."""
    variant = vocabulary or spec.publisher
    variant = variant if "." in variant else f"{spec.names}.{variant}"
    variants = class_names.variants(spec.names)
    if variant not in variants:
        raise VocabularyError(f"'{vocabulary}' are no class names of {name}; there are {', '.join(variants)}.")
    words = class_names.load_class_names(variant)
    if not spec.rivals:
        return words, ()
    names, rivals = words.names[: -spec.rivals], words.names[-spec.rivals :]
    return Vocabulary((*names, "background"), (*words.synonyms[: len(names)], ())), rivals
