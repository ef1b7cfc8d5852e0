"""Cityscapes: 19 classes of street scenes."""

from dataclasses import replace

from eval.datasets.labels import read_colours, value_table
from eval.datasets.layout import Layout
from eval.datasets.spec import Conversion, Spec

_IDS = (7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33)
"""The ids of the 19 classes among the 34 that are annotated."""

_COLOURS = (
    *(0x804080, 0xF423E8, 0x464646, 0x66669C, 0xBE9999, 0x999999, 0xFAAA1E, 0xDCDC00, 0x6B8E23, 0x98FB98),
    *(0x4682B4, 0xDC143C, 0xFF0000, 0x00008E, 0x000046, 0x003C64, 0x005064, 0x0000E6, 0x770B20),
)
_OTHER_COLOURS = (0x000000, 0x6F4A00, 0x510051, 0xFAAAA0, 0xE6968C, 0xB4A5B4, 0x966464, 0x96785A, 0x00005A, 0x00006E)
"""Unlabelled or static, dynamic, ground, parking, rail track, guard rail, bridge, tunnel, caravan, trailer."""

_TRAIN_IDS = Layout(
    homes=("cityscapes", ""),
    images=("leftImg8bit/val",),
    labels="gtFine/val",
    table=value_table(range(19)),
    image_suffixes=("_leftImg8bit.png",),
    label_suffix="_gtFine_labelTrainIds.png",
)
_LABEL_IDS = replace(
    _TRAIN_IDS,
    label_suffix="_gtFine_labelIds.png",
    table=value_table(_IDS, ignored=(255, *(i for i in range(34) if i not in _IDS))),
)
_COLOUR_CODED = replace(
    _TRAIN_IDS,
    label_suffix="_gtFine_color.png",
    table=value_table(_COLOURS, ignored=_OTHER_COLOURS),
    read=read_colours,
)
"""The last choice, because groups of poles, which are none of the classes, have the colour of poles."""

SPECS = {
    "cityscapes_19": Spec(
        title="Cityscapes val, 19 classes",
        names="cityscapes_19",
        publisher="cityscapes",
        images=500,
        layouts=(_TRAIN_IDS, _LABEL_IDS, _COLOUR_CODED),
        conversions=(Conversion(_LABEL_IDS, _TRAIN_IDS),),
    ),
}
