"""How a TagCLIP or ZegCLIP model was trained: the words of its seen classes, its prompt templates, its seen penalty.

Inference needs these facts, and the tensors do not hold them. Files trained here carry them in their metadata; for the
released files of ZegCLIP they follow from the checkpoint id.
"""

import json
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from ovseg_demo.errors import CheckpointError
from ovseg_demo.weights import reading

Templates = Literal["photo", "scenes"]
Benchmark = Literal["voc", "coco"]
Setting = Literal["inductive", "transductive", "supervised"]

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
"""The prompt templates of the models for VOC ("photo") and for COCO-Stuff ("scenes").

A word's text embedding is the mean direction of its embeddings in all templates.
"""

METADATA_KEY = "tagclip"
"""The entry of a safetensors file's metadata that holds a `TrainingInfo` as JSON."""

_RENAMED_FIELDS = {"taught": "seen_words", "handicap": "seen_penalty"}
"""Names of fields in the JSON that earlier versions wrote, with the names of today."""


@dataclass(frozen=True)
class ClassSplit:
    """The classes of a data set for zero-shot evaluation.

    Attributes:
        seen: names of the classes whose masks training shows.
        unseen: names of the classes whose masks are held out.
    """

    seen: tuple[str, ...]
    unseen: tuple[str, ...]


@dataclass(frozen=True)
class TrainingInfo:
    """The facts about a model's training that inference needs.

    Attributes:
        seen_words: words of the seen classes, those whose masks training has shown.
        templates: the key in `TEMPLATES` of the prompts in which the model reads words.
        seen_penalty: whether inference subtracts `scores.SEEN_PENALTY` from the mask probabilities of seen classes, as
            the published code does after inductive training, and not after self-training.
    """

    seen_words: tuple[str, ...]
    templates: Templates
    seen_penalty: bool

    def to_json(self) -> str:
        """The text that `from_json` reads."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, source: str) -> "TrainingInfo":
        """Read what `to_json` of this or of an earlier version wrote.

        Args:
            text: the JSON object.
            source: name of the file it is from, for messages.

        Raises:
            CheckpointError: when the text is no such object, or names unknown prompt templates.
        """
        try:
            fields = {_RENAMED_FIELDS.get(name, name): value for name, value in json.loads(text).items()}
            info = cls(tuple(map(str, fields["seen_words"])), fields["templates"], bool(fields["seen_penalty"]))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise CheckpointError(f"{source} does not say how it was trained.") from error
        if info.templates not in TEMPLATES:
            raise CheckpointError(f"{source} was trained with unknown prompts, '{info.templates}'.")
        return info


def read_training_info(path: Path) -> TrainingInfo:
    """Read the metadata of a safetensors file that was trained here.

    Raises:
        CheckpointError: when the metadata has no valid `TrainingInfo`.
    """
    text = reading.read_metadata(path).get(METADATA_KEY)
    if text is None:
        raise CheckpointError(f"{path.name} does not say how it was trained; files of train.tagclip do.")
    return TrainingInfo.from_json(text, path.name)


@cache
def class_splits() -> dict[str, ClassSplit]:
    """The published splits, by the names that the releases use: "voc" (15 seen, 5 unseen) and "coco" (156 and 15)."""
    table = json.loads((Path(__file__).parent / "class_splits.json").read_text(encoding="utf-8"))
    return {name: ClassSplit(tuple(split["seen"]), tuple(split["unseen"])) for name, split in table.items()}


def published_training_info(benchmark: Benchmark, setting: Setting) -> TrainingInfo:
    """How one of ZegCLIP's released models was trained.

    Args:
        benchmark: "voc" or "coco", whose classes it was trained on.
        setting: "inductive" (seen classes only), "transductive" (self-training on unseen ones) or "supervised" (all
            classes seen).
    """
    split = class_splits()[benchmark]
    words = split.seen + split.unseen if setting == "supervised" else split.seen
    return TrainingInfo(words, "photo" if benchmark == "voc" else "scenes", seen_penalty=setting == "inductive")
