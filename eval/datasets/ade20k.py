"""ADE20K: 150 classes of the scene parsing challenge, and 847 of the full set."""

import json
from dataclasses import replace
from importlib import resources

from eval.datasets.labels import read_object_ids, value_table
from eval.datasets.layout import Layout
from eval.datasets.spec import Conversion, Spec

_MMSEGMENTATION_150 = Layout(
    homes=("ADEChallengeData2016", "ade/ADEChallengeData2016", ""),
    images=("images/validation",),
    labels="annotations/validation",
    table=value_table(range(1, 151), ignored=(0,)),
)
"""The files as published, which mmsegmentation shifts by one while loading."""

_DETECTRON2_150 = replace(
    _MMSEGMENTATION_150, labels="annotations_detectron2/validation", table=value_table(range(150))
)

_DETECTRON2_847 = Layout(
    homes=("ADE20K_2021_17_01", ""),
    images=("images_detectron2/validation",),
    labels="annotations_detectron2/validation",
    table=value_table(range(847), ignored=(65535,)),
    label_suffix=".tif",
)

_OBJECT_IDS = json.loads((resources.files("eval.datasets") / "ade20k_847_object_ids.json").read_text(encoding="utf-8"))
"""The id of each of the 847 classes among the objects of ADE20K_2021_17_01."""

_LARGEST_OBJECT = 255 // 10 * 256 + 255

_PUBLISHED_847 = replace(
    _DETECTRON2_847,
    images=("images/ADE/validation",),
    labels="images/ADE/validation",
    label_suffix="_seg.png",
    table=value_table(_OBJECT_IDS, ignored=range(_LARGEST_OBJECT + 1)),
    read=read_object_ids,
)

SPECS = {
    "ade20k_150": Spec(
        title="ADE20K validation, 150 classes",
        names="ade20k_150",
        publisher="ovseg",
        images=2000,
        layouts=(_DETECTRON2_150, _MMSEGMENTATION_150),
        conversions=(Conversion(_MMSEGMENTATION_150, _DETECTRON2_150),),
        published={"ensemble": 0.7},
    ),
    "ade20k_847": Spec(
        title="ADE20K validation, 847 classes",
        names="ade20k_847",
        publisher="ovseg",
        images=2000,
        # Not the files as published: the numbers of the field are of images scaled down to 512 pixels.
        layouts=(_DETECTRON2_847,),
        conversions=(Conversion(_PUBLISHED_847, _DETECTRON2_847, shorter_side=512),),
        published={"ensemble": 0.7},
    ),
}
