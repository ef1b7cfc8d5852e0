"""PASCAL VOC 2012: 20 classes, with and without background, and split into seen and unseen."""

from dataclasses import replace

from eval.datasets.labels import value_table
from eval.datasets.layout import Layout
from eval.datasets.spec import Conversion, Spec

_DEVKIT = Layout(
    homes=("VOCdevkit/VOC2012", "VOC2012", ""),
    images=("JPEGImages",),
    labels="SegmentationClass",
    table=value_table(range(21)),
    split=("ImageSets/Segmentation/val.txt", "val.txt"),
    mixed=True,
)
"""The files as published, which mmsegmentation reads: 0 is background, 255 the rim of objects."""

_AUGMENTED = replace(_DEVKIT, labels="SegmentationClassAug")
"""The devkit's label maps and those of SBD in one folder; Detectron2's preparations start from it."""

_PUBLISHED_21 = (_DEVKIT, _AUGMENTED)
_PUBLISHED_20 = tuple(replace(layout, table=value_table(range(1, 21), ignored=(0, 255))) for layout in _PUBLISHED_21)
_PUBLISHED_20B = tuple(replace(layout, table=value_table((*range(1, 21), 0))) for layout in _PUBLISHED_21)
_DETECTRON2_20 = replace(_DEVKIT, labels="annotations_detectron2/val", table=value_table(range(20)), mixed=False)
_DETECTRON2_20B = replace(_DETECTRON2_20, labels="annotations_detectron2_bg/val", table=value_table(range(21)))

_VOC_20 = Spec(
    title="PASCAL VOC 2012 val, 20 classes, background ignored",
    names="voc_20",
    publisher="ovseg",
    images=1449,
    layouts=(_DETECTRON2_20, *_PUBLISHED_20),
    conversions=tuple(Conversion(layout, _DETECTRON2_20) for layout in _PUBLISHED_20),
)

SPECS = {
    "voc_20": replace(_VOC_20, published={"ensemble": 0.45}),
    "voc_20b": replace(
        _VOC_20,
        title="PASCAL VOC 2012 val, 20 classes and a background that 39 words of PASCAL-Context stand for",
        names="voc_20b",
        publisher="sed",
        layouts=(_DETECTRON2_20B, *_PUBLISHED_20B),
        conversions=tuple(Conversion(layout, _DETECTRON2_20B) for layout in _PUBLISHED_20B),
        background=20,
        rivals=39,
    ),
    "voc_21": replace(
        _VOC_20,
        title="PASCAL VOC 2012 val, 20 classes and background",
        names="voc_21",
        publisher="segclip",
        layouts=_PUBLISHED_21,
        conversions=(),
        background=0,
        # The released code's threshold; SegCLIP's paper says 0.75 (section 3.1).
        published={"background": 0.80},
    ),
    "voc_15_5": replace(
        _VOC_20,
        title="PASCAL VOC 2012 val, 15 seen and 5 unseen classes, background ignored",
        publisher="tagclip",
        unseen=tuple(range(15, 20)),
    ),
}


def _training(title: str, images: int, layouts: tuple[Layout, ...], lists: str) -> Spec:
    """Photos that a list of the devkit names; background is a label of its own, known to be none of the 20 classes."""
    split = (f"ImageSets/Segmentation/{lists}", lists)
    return replace(
        _VOC_20,
        title=title,
        names="voc_21",
        publisher="tagclip",
        images=images,
        layouts=tuple(replace(layout, split=split) for layout in layouts),
        conversions=(),
        background=0,
    )


TRAINING = {
    "voc_20_train": _training("PASCAL VOC 2012 train, 20 classes", 1464, _PUBLISHED_21, "train.txt"),
    "voc_20_train_aug": _training(
        "PASCAL VOC 2012 train with the labels of SBD, 20 classes", 10_582, (_AUGMENTED,), "trainaug.txt"
    ),
}
"""To learn from, not to measure by."""
