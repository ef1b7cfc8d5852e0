"""A labelled folder of one's own as a benchmark.

    ROOT/images/KEY.jpg   or another format
    ROOT/masks/KEY.png    the index of each pixel's class; 255 is ignored (65535 in masks for more than 255 classes)
    ROOT/classes.json     the list of names

A class named "background" or "null" stands for everything that has no name: no method is asked for that name, and
pixels that a method leaves unlabelled count as background. The dataset "folder" counts the pixels of background,
because they are labelled; "folder_named" ignores them, as the protocols without background do.
"""

import json
from dataclasses import replace
from pathlib import Path

from eval.datasets.base import DatasetError
from eval.datasets.labels import value_table
from eval.datasets.layout import Layout
from eval.datasets.spec import Spec
from ovseg_demo.vocabulary import Vocabulary

_BACKGROUNDS = ("background", "null")
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")

_FOLDER = Spec(
    title="ROOT/images, ROOT/masks and ROOT/classes.json",
    names="",
    publisher="",
    images=None,
    layouts=(Layout(homes=("",), images=("images",), labels="masks", table={}, image_suffixes=_IMAGES),),
)

SPECS = {
    "folder": _FOLDER,
    "folder_named": replace(_FOLDER, title=f"{_FOLDER.title}, background ignored", ignores_rest=True),
}


def complete_spec(spec: Spec, root: Path) -> tuple[Spec, Vocabulary]:
    """The specification of a folder, completed by its classes.json, and the names of its classes.

    Args:
        spec: a specification of SPECS.
        root: the folder.

    Raises:
        DatasetError: when classes.json is missing, or is no list of different names.
    """
    names = _names(root / "classes.json")
    backgrounds = [i for i, name in enumerate(names) if name.casefold() in _BACKGROUNDS]
    if len(backgrounds) > 1:
        raise DatasetError(
            f"{root / 'classes.json'} has two names for the rest: {' and '.join(map(names.__getitem__, backgrounds))}."
        )
    outside = 255 if len(names) <= 255 else 65535
    ignored = backgrounds if spec.ignores_rest else []
    kept = [i for i in range(len(names)) if i not in ignored]
    table = value_table(kept, ignored=(outside, *ignored))
    layouts = tuple(replace(layout, table=table) for layout in spec.layouts)
    background = backgrounds[0] if backgrounds and not ignored else None
    words = Vocabulary(tuple(names[i] for i in kept), ((),) * len(kept))
    return replace(spec, layouts=layouts, background=background), words


def _names(path: Path) -> tuple[str, ...]:
    try:
        names = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise DatasetError(f"There is no {path}, the list of the folder's class names.") from None
    except (OSError, ValueError) as error:
        raise DatasetError(f"{path} cannot be read as JSON: {error}.") from error
    if not isinstance(names, list) or not names or not all(isinstance(name, str) and name.strip() for name in names):
        raise DatasetError(f"{path} is not a list of names.")
    names = [name.strip() for name in names]
    folded = [name.casefold() for name in names]
    if repeated := [name for i, name in enumerate(names) if folded[i] in folded[:i]]:
        raise DatasetError(f"{path} has '{repeated[0]}' twice; each class needs a name of its own.")
    return tuple(names)
