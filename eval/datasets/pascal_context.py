"""PASCAL-Context: 59 classes, with and without background, and all 459."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from eval import class_names
from eval.datasets.base import IGNORE, DatasetError
from eval.datasets.labels import label_decoder, read_label_map, read_values, value_table
from eval.datasets.layout import Layout
from eval.datasets.spec import Conversion, Spec

_NAMES = class_names.load_class_names("context_59.ovseg").names
"""In alphabetical order: the label order of mmsegmentation, SAN and SED, and ours."""

_OVSEG_NAMES = (
    *(name.replace("dining", "") for name in class_names.load_class_names("voc_20.ovseg").names),
    *("bag", "bed", "bench", "book", "building", "cabinet", "ceiling", "cloth", "computer", "cup", "door", "fence"),
    *("floor", "flower", "food", "grass", "ground", "keyboard", "light", "mountain", "mouse", "curtain", "platform"),
    *("sign", "plate", "road", "rock", "shelves", "sidewalk", "sky", "snow", "bedclothes", "track", "tree", "truck"),
    *("wall", "water", "window", "wood"),
)
"""In the order of 59_labels.txt, by which OVSeg's preparation numbers its files."""

_COMMON_NAMES = ("sky", "grass", "tree", "building")
"""Frequent classes of the benchmark; their indices in either order are indices of rarer classes in the other."""

_SAMPLED_FILES = 64


def _numbered_as_ovseg(files: Sequence[Path]) -> bool:
    """Whether label files are numbered in OVSeg's order of the classes rather than SED's.

    Both preparations write the same file names to the same folder (SED numbers by the ids of trainval_merged.json),
    so that only the frequencies of the stored values tell them apart.
    """
    decode, pixels = label_decoder(value_table(range(59)), read_values), np.zeros(59, np.int64)
    for path in sorted(files)[:: -(-len(files) // _SAMPLED_FILES)]:
        try:
            labels = decode(path)
        except DatasetError:  # reported when the turn of its image comes
            continue
        pixels += np.bincount(labels[labels != IGNORE], minlength=59)
    by_ovseg, by_sed = (pixels[[names.index(n) for n in _COMMON_NAMES]].sum() for names in (_OVSEG_NAMES, _NAMES))
    return bool(by_ovseg > by_sed)


_MMSEGMENTATION_60 = Layout(
    homes=("VOCdevkit/VOC2010", "VOC2010", ""),
    images=("JPEGImages",),
    labels="SegmentationClassContext",
    table=value_table(range(60)),
    split=("ImageSets/SegmentationContext/val.txt", "pascalcontext_val.txt"),
    mixed=True,
)
_MMSEGMENTATION_59 = replace(_MMSEGMENTATION_60, table=value_table(range(1, 60), ignored=(0, 255)))
_SED_59 = replace(
    _MMSEGMENTATION_60, labels="annotations_detectron2/pc59_val", table=value_table(range(59)), mixed=False
)
_OVSEG_59 = replace(_SED_59, table=value_table(map(_OVSEG_NAMES.index, _NAMES)), accepts=_numbered_as_ovseg)
_SAN_59 = Layout(homes=("pcontext", ""), images=("val/image",), labels="val/label", table=value_table(range(59)))

_DETECTRON2_459 = replace(
    _SED_59,
    labels="annotations_detectron2/pc459_val",
    # OVSeg's and SED's preparations keep 459 for pixels without a name.
    table=value_table(range(459), ignored=(65535, 459)),
    label_suffix=".tif",
)
_SAN_459 = replace(_SAN_59, homes=("pcontext_full", ""), table=_DETECTRON2_459.table, label_suffix=".tif")

_PUBLISHED_459 = replace(
    _MMSEGMENTATION_60,
    labels="trainval",
    table=value_table(range(1, 460), ignored=(0, 460)),
    label_suffix=".mat",
    read=read_label_map,
)
"""The files as published: LabelMap counts the 459 names from 1; 460 are pixels without one."""

_INDICES_IN_459 = [class_names.load_class_names("context_459.ovseg").names.index(name) + 1 for name in _NAMES]
_PUBLISHED_59 = replace(_PUBLISHED_459, table=value_table(_INDICES_IN_459, ignored=range(461)))
_PUBLISHED_60 = replace(
    _PUBLISHED_459,
    table=dict.fromkeys(range(461), 0) | {value: label for label, value in enumerate(_INDICES_IN_459, 1)},
)

_CONTEXT_59 = Spec(
    title="PASCAL-Context val, 59 classes, background ignored",
    names="context_59",
    publisher="ovseg",
    images=5104,
    layouts=(_MMSEGMENTATION_59, _SAN_59, _OVSEG_59, _SED_59, _PUBLISHED_59),
    # One file serves both: 0 is the background of the 60 classes, and ignored among the 59.
    conversions=(Conversion(_PUBLISHED_59, _MMSEGMENTATION_59),),
)

SPECS = {
    "context_59": replace(_CONTEXT_59, published={"ensemble": 0.6}),
    "context_60": replace(
        _CONTEXT_59,
        title="PASCAL-Context val, 59 classes and background",
        names="context_60",
        publisher="segclip",
        layouts=(_MMSEGMENTATION_60, _PUBLISHED_60),
        background=0,
        published={"background": 0.25},
    ),
    "context_60b": replace(
        _CONTEXT_59,
        title="PASCAL-Context val, 59 classes and a background that the word background stands for",
        names="context_60",
        publisher="tagclip",
        layouts=(_MMSEGMENTATION_60, _PUBLISHED_60),
    ),
    "context_459": replace(
        _CONTEXT_59,
        title="PASCAL-Context val, 459 classes",
        names="context_459",
        layouts=(_DETECTRON2_459, _SAN_459, _PUBLISHED_459),
        conversions=(Conversion(_PUBLISHED_459, _DETECTRON2_459),),
        published={"ensemble": 0.6},
    ),
}
