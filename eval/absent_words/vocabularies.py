"""Vocabularies for one labelled photo, some of whose words are absent from it."""

import random
from dataclasses import dataclass

import numpy as np

from eval.datasets.base import IGNORE

OWN_AND_ABSENT, OWN_LESS_ONE, ABSENT = "own+absent", "own-less-one", "absent"

KINDS = {
    OWN_AND_ABSENT: "the photo's own words and as many absent ones",
    OWN_LESS_ONE: "the same without one of the photo's own words",
    ABSENT: "absent words only, as many as the photo has of its own",
}
"""The kinds of vocabularies, with what each holds. All of one photo hold the same absent words."""

SMALLEST = 0.01
"""Classes with a smaller share of the photo's pixels are neither present nor absent: not asked for, and not counted."""


@dataclass(frozen=True)
class PhotoClasses:
    """The classes of a data set, by how much a photo shows of them; the background is in none.

    Attributes:
        present: indices of the classes with at least SMALLEST of the pixels.
        small: indices of the classes with fewer pixels.
        absent: indices of the classes without a pixel.
    """

    present: tuple[int, ...]
    small: tuple[int, ...]
    absent: tuple[int, ...]

    @classmethod
    def of(cls, labels: np.ndarray, classes: int, background: int | None) -> "PhotoClasses":
        """The classes of a photo.

        Args:
            labels: integers (H, W) in [0, C), or IGNORE.
            classes: C.
            background: index of the class that means "none of the others", or None.
        """
        pixels = np.bincount(labels[labels != IGNORE], minlength=classes)
        named = [c for c in range(classes) if c != background]
        return cls(
            tuple(c for c in named if pixels[c] >= SMALLEST * labels.size),
            tuple(c for c in named if 0 < pixels[c] < SMALLEST * labels.size),
            tuple(c for c in named if not pixels[c]),
        )


def draw(classes: PhotoClasses, key: str, seed: int) -> dict[str, tuple[int, ...]]:
    """A vocabulary of each kind, as indices of classes in their order, by kind; kinds without any word are left out.

    The same photo has the same vocabularies on every machine and in any order of the photos. There are fewer absent
    words than own words where the data set has no more.

    Args:
        classes: of the photo; without a present class there is no vocabulary.
        key: of the photo.
        seed: another seed makes other vocabularies.
    """
    if not classes.present:
        return {}
    random_of_photo = random.Random(f"{seed} {key}")  # random seeds itself with the text's SHA-512
    absent = random_of_photo.sample(classes.absent, min(len(classes.present), len(classes.absent)))
    left_out = random_of_photo.choice(classes.present)
    vocabularies = {
        OWN_AND_ABSENT: [*classes.present, *absent],
        OWN_LESS_ONE: [*(c for c in classes.present if c != left_out), *absent],
        ABSENT: absent,
    }
    return {kind: tuple(sorted(words)) for kind, words in vocabularies.items() if words}


def truth(labels: np.ndarray, classes: PhotoClasses, offered: tuple[int, ...], unlabelled: int) -> np.ndarray:
    """The right labels where only some classes are offered, int32 (H, W).

    Pixels of every other class, and of the background, are to be left unlabelled. Pixels of small classes are ignored.

    Args:
        labels: integers (H, W) in [0, C), or IGNORE.
        classes: of the photo.
        offered: indices of the classes of the vocabulary.
        unlabelled: the label of pixels that are to be left unlabelled.
    """
    right = np.where(np.isin(labels, offered), labels, unlabelled)
    return np.where((labels == IGNORE) | np.isin(labels, classes.small), IGNORE, right).astype(np.int32)
