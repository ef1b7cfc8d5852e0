"""What a model of TagCLIP's family must know and its tensors do not say: which words it was trained with, and how."""

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weights import reading

Templates = Literal["photo", "scenes"]

TEMPLATES: dict[Templates, tuple[str, ...]] = {
    "photo": ("a photo of a {}",),
    "scenes": (
        "a photo of a {}.",
        "a photo of a small {}.",
        "a photo of a medium {}.",
        "a photo of a large {}.",
        "This is a photo of a {}.",
        "This is a photo of a small {}.",
        "This is a photo of a medium {}.",
        "This is a photo of a large {}.",
        "a {} in the scene.",
        "a photo of a {} in the scene.",
        "There is a {} in the scene.",
        "There is the {} in the scene.",
        "This is a {} in the scene.",
        "This is the {} in the scene.",
        "This is one {} in the scene.",
    ),
}
"""The prompts of models for VOC, and of those for COCO-Stuff, whose unit vectors are averaged."""

METADATA_KEY = "tagclip"
"""The entry of a safetensors file's metadata that has an `TrainingInfo`."""


@dataclass(frozen=True)
class ClassSplit:
    """Classes whose masks training shows, and those that measure how it does on others."""

    seen: tuple[str, ...]
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class TrainingInfo:
    """What goes with a model's tensors.

    Attributes:
        taught: words of the classes whose masks training has shown.
        templates: the prompts in which it reads words.
        handicap: whether 0.1 is taken off the mask probabilities of seen classes, as the published code does after
            inductive training, and not after self-training.
    """

    taught: tuple[str, ...]
    templates: Templates
    handicap: bool

    def to_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, source: str) -> "TrainingInfo":
        """What `to_json` wrote into the file `source`. Raises CheckpointError for anything else."""
        try:
            about = json.loads(text)
            made = cls(tuple(map(str, about["taught"])), about["templates"], bool(about["handicap"]))
        except (ValueError, KeyError, TypeError) as error:
            raise CheckpointError(f"{source} does not say how it was trained.") from error
        if made.templates not in TEMPLATES:
            raise CheckpointError(f"{source} was trained with unknown prompts, '{made.templates}'.")
        return made


def read_training_info(path: Path) -> TrainingInfo:
    """What a file that was trained here says of itself. Raises CheckpointError when it says nothing."""
    told = reading.read_metadata(path).get(METADATA_KEY)
    if told is None:
        raise CheckpointError(f"{path.name} does not say how it was trained; files of train.tagclip do.")
    return TrainingInfo.from_json(told, path.name)


@cache
def class_splits() -> dict[str, ClassSplit]:
    """Of "voc" (15 and 5 classes) and "coco" (COCO-Stuff, 156 and 15), by the names the releases use."""
    table = json.loads((Path(__file__).parent / "class_splits.json").read_text(encoding="utf-8"))
    return {name: ClassSplit(tuple(split["seen"]), tuple(split["unseen"])) for name, split in table.items()}


def published_training_info(checkpoint_id: str) -> TrainingInfo:
    """Of ZegCLIP's released models, named zegclip-voc, zegclip-coco-transductive and so on."""
    _, data, *setting = checkpoint_id.split("-")
    split = class_splits()[data]
    taught = split.seen + split.unseen if setting == ["supervised"] else split.seen
    return TrainingInfo(taught, "photo" if data == "voc" else "scenes", handicap=not setting)
