"""COCO val2017: 171 things and stuff of COCO-Stuff, and the 80 things of COCO-Object."""

from dataclasses import replace

from eval.datasets.labels import value_table
from eval.datasets.layout import Layout
from eval.datasets.spec import Conversion, Spec

_ABSENT = frozenset((11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90))
"""Ids that COCO-Stuff counts but does not use."""

_IDS = tuple(i for i in range(182) if i not in _ABSENT)
_THINGS = tuple(i for i in _IDS if i < 90)
_PUBLISHED_TABLE = value_table(_IDS, ignored=(255, *_ABSENT))

_OVSEG = Layout(
    homes=("coco", ""),
    images=("val2017", "images/val2017"),
    labels="stuffthingmaps_detectron2/val2017",
    table=value_table(range(171)),
)
_SED = replace(_OVSEG, homes=("coco-stuff", ""), images=("images/val2017",), labels="annotations_detectron2/val2017")
_MMSEGMENTATION = replace(
    _SED, homes=("coco_stuff164k", ""), labels="annotations/val2017", label_suffix="_labelTrainIds.png"
)

_FROM_OVSEG = replace(_OVSEG, labels="stuffthingmaps/val2017", table=_PUBLISHED_TABLE)
_FROM_SED = replace(_SED, labels="annotations/val2017", table=_PUBLISHED_TABLE)
_FROM_MMSEGMENTATION = replace(_MMSEGMENTATION, label_suffix=".png", table=_PUBLISHED_TABLE)
"""The files as published, in the folders where the preparations start from them."""

_SEGCLIP = Layout(
    homes=("coco_stuff164k", "coco", ""),
    images=("images/val2017", "val2017"),
    labels="annotations/val2017",
    table=value_table(range(81), ignored=()),
    label_suffix="_instanceTrainIds.png",
)
_OBJECT_TABLE = dict.fromkeys(range(256), 0) | {i: label for label, i in enumerate(_THINGS, 1)}
"""Stuff and unlabelled pixels are background: SegCLIP's preparation ignores no pixel."""

_OBJECT_SOURCES = tuple(replace(layout, table=_OBJECT_TABLE) for layout in (_FROM_MMSEGMENTATION, _FROM_OVSEG))


def _training(layout: Layout) -> Layout:
    """The same preparation's training split."""
    images = tuple(folder.replace("val2017", "train2017") for folder in layout.images)
    return replace(layout, images=images, labels=layout.labels.replace("val2017", "train2017"))


SPECS = {
    "coco_stuff_171": Spec(
        title="COCO-Stuff 164k val2017, 171 classes, 15 of them unseen",
        names="coco_stuff_171",
        publisher="ovseg",
        images=5000,
        layouts=(_OVSEG, _SED, _MMSEGMENTATION, _FROM_OVSEG, _FROM_SED, _FROM_MMSEGMENTATION),
        conversions=(
            Conversion(_FROM_OVSEG, _OVSEG),
            Conversion(_FROM_SED, _SED),
            Conversion(_FROM_MMSEGMENTATION, _MMSEGMENTATION),
        ),
        unseen=(19, 23, 28, 29, 36, 51, 76, 88, 94, 112, 133, 136, 137, 157, 160),
    ),
    "coco_object_81": Spec(
        title="COCO val2017, 80 things and background",
        names="coco_object_81",
        publisher="segclip",
        images=5000,
        layouts=(_SEGCLIP, *_OBJECT_SOURCES),
        conversions=tuple(Conversion(layout, _SEGCLIP) for layout in _OBJECT_SOURCES),
        background=0,
        published={"background": 0.65},
    ),
}

TRAINING = {
    "coco_stuff_171_train": Spec(
        title="COCO-Stuff 164k train2017, 171 classes",
        names="coco_stuff_171",
        publisher="ovseg",
        images=118_287,
        layouts=tuple(_training(layout) for layout in (_OVSEG, _SED, _MMSEGMENTATION, _FROM_OVSEG)),
    ),
}
"""To learn from, not to measure by."""
