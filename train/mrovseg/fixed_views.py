"""Whole photos without augmentation, and CLIP's features of them in files: computed once, read in every later step.

CLIP is frozen and takes most of the time of a step, so on few photos this pays; augmented photos, which are never the
same twice, are read by CLIP in every step. A photo takes 21 MB on the disk for ViT-B/16 in half precision, or twice as
much in single precision: 2 GB for a hundred photos, and more than two terabytes for COCO-Stuff.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from tqdm import tqdm

from ovseg_demo.methods.mrovseg.model import ClipFeatures, MROVSeg
from ovseg_demo.runtime.preprocess import CLIP_MEAN, CLIP_STD, normalise
from train.common.augmentation import Augmentation, whole_view
from train.common.feature_cache import FeatureCache
from train.common.labelled_batches import LabelledSet, training_rows
from train.common.run_folder import RunFolder
from train.common.sampling import Batch, SetSampler, StepGenerator

_HIGH, _LABELS, _TOKEN = "high", "labels", "class_token"

_PRECISIONS = {"no": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def feature_cache(folder: RunFolder, model: MROVSeg) -> FeatureCache:
    """The files of a folder, each with what the model needs of one photo, and its labels.

    Args:
        folder: holds the files; its configuration is everything that the features depend on.
        model: the model.
    """
    kinds = ("low",) if model.settings.single_resolution else ("low", _HIGH)
    maps = [f"{kind} {layer}" for kind in kinds for layer in model.layers_read]
    return FeatureCache(folder, (*maps, _TOKEN, _LABELS))


@torch.no_grad()
def encode_photos(
    sets: Sequence[LabelledSet], model: MROVSeg, views: Augmentation, precision: str, cache: FeatureCache
) -> None:
    """Write the files of all photos; existing ones are kept.

    Args:
        sets: the labelled sets.
        model: on the device that computes.
        views: tells the size of the photos and their filling colour.
        precision: "no", "bf16" or "fp16", in which CLIP runs and features are kept; "no" is single precision.
        cache: the files, from `feature_cache`.

    Raises:
        UserError: when a photo or its labels cannot be read, or a file cannot be written.
    """
    device, kept = model.bg_embed.device, _PRECISIONS[precision]
    for source in sets:
        rows = training_rows(source)
        bar = tqdm(source.dataset, desc=f"features of {source.name}", unit="photo", disable=None)
        for number, sample in enumerate(bar):
            name = _file_name(source, number)
            if name in cache:
                continue
            pixels, labels = source.load(sample)
            photo, wanted = whole_view(pixels, rows[labels], views)
            with torch.autocast(device.type, kept, enabled=precision != "no"):
                features = model.features(normalise(photo[None].to(device), CLIP_MEAN, CLIP_STD))
            tensors = {_TOKEN: features.class_token} | {f"low {layer}": of for layer, of in features.low.items()}
            if not model.settings.single_resolution:
                tensors |= {f"{_HIGH} {layer}": of for layer, of in features.high.items()}
            stored = {key: value[0].to("cpu", kept).contiguous() for key, value in tensors.items()}
            cache.store(name, stored | {_LABELS: wanted.short()})


class FixedViews:
    """A `BatchSampler` of whole photos whose features are in files; sets are drawn by `SetSampler`.

    A batch has "low" and "high", maps by layer, and "class_token", as in `ClipFeatures`; and "labels" and "sets", as in
    `LabelledBatches`.

    Args:
        sets: the labelled sets.
        batch: B, the photos of one process.
        cache: the files, which `encode_photos` has written.
    """

    def __init__(self, sets: Sequence[LabelledSet], batch: int, cache: FeatureCache) -> None:
        self._sets, self._batch, self._cache = sets, batch, cache
        self._sampler = SetSampler([len(source.dataset) for source in sets], [sum(s.training_classes) for s in sets])

    def __call__(self, generator: StepGenerator) -> Batch:
        sets = self._sampler.draw_sets(self._batch, generator)
        photos = [
            self._cache.load(_file_name(self._sets[number], self._sampler.draw_photo(number, generator)))
            for number in sets
        ]
        stacked = {name: torch.stack([photo[name] for photo in photos]) for name in photos[0]}
        low = _maps(stacked, "low")
        return {
            "low": low,
            "high": _maps(stacked, _HIGH) or low,
            _TOKEN: stacked[_TOKEN],
            _LABELS: stacked[_LABELS].long(),
            "sets": sets,
        }


def features_of(batch: Batch) -> ClipFeatures:
    """The features of a batch of `FixedViews`."""
    return ClipFeatures(batch["low"], batch["high"], batch[_TOKEN])


def _maps(stacked: Mapping[str, Tensor], kind: str) -> dict[int, Tensor]:
    """The maps of a kind by layer."""
    return {
        int(layer): value for name, value in stacked.items() for of, _, layer in [name.partition(" ")] if of == kind
    }


def _file_name(source: LabelledSet, number: int) -> str:
    return f"{source.name}-{number}"
