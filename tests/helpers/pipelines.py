"""Every training pipeline with data for a tiny run of it, and what the tests of their common promises must know."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ovseg_demo.models.mini.towers import TextTower
from tests.helpers.mini_data import (
    HELD_OUT,
    KEYS,
    VOC,
    spelling,
    two_halves,
    write_described_set,
    write_labelled_set,
)
from tests.helpers.pairs_data import COLOURS, ByColour, Quarters, folder_of, pair, quarters
from tests.helpers.segclip_data import write_captioned_photos
from train.mini.heads import __main__ as mini_heads
from train.mini.mrovseg import __main__ as mini_mrovseg
from train.mini.sed import __main__ as mini_sed
from train.mini.segclip import __main__ as mini_segclip
from train.mini.tagclip import __main__ as mini_tagclip
from train.mini.tagclip import experiments
from train.mrovseg import __main__ as mrovseg
from train.mrovseg import saving as mrovseg_saving
from train.ovseg.clip import __main__ as clip
from train.ovseg.maskformer import __main__ as maskformer
from train.ovseg.maskformer import trained_model
from train.ovseg.pairs import __main__ as pairs
from train.sed import __main__ as sed
from train.sed import saving as sed_saving
from train.segclip import __main__ as segclip
from train.segclip import saving as segclip_saving
from train.tagclip import __main__ as tagclip
from train.tagclip import saving as tagclip_saving

STREET = ["road", "sky", "snow"]
CAPTIONS = [["Grass .", "Snow on the water ."], ["The water is blue ."], ["Go !"], ["Snow ."], ["Grass and snow ."]]


@dataclass(frozen=True)
class Interruption:
    """Where a run is interrupted.

    Attributes:
        stage: title of the training stage, or None where a pipeline has one stage only.
        step: the last step before the interruption.
        arguments: of the whole run, the interrupted and the resumed one.
        resumed_with: further arguments of the resumed run alone, which must not change its result.
    """

    stage: str | None = None
    step: int = 3
    arguments: tuple[str, ...] = ()
    resumed_with: tuple[str, ...] = ()


@dataclass(frozen=True)
class Pipeline:
    """A training command.

    Attributes:
        command: the module that is run.
        write_data: writes the data of a tiny run into a folder.
        arguments: of a tiny run, beside its data and its output.
        results: the files of weights that it makes, relative to its output.
        missing_data: what its error says of a folder without data, after the name of the folder.
        other_settings: arguments that make another run of it, and what the refusal says of them.
        unusable: arguments that no run can have, and the error.
        data_option: the option that names the folder of its data.
        fitting: the modules whose `fit` trains.
        logs: the logs of its stages, relative to its output.
        record: the first entry of the record that it prints last, or None where it prints none.
        reused: a folder of its output, slow to make, that another run may have a copy of.
        interruptions: where to interrupt it.
        replace_models: puts quick models in place of slow ones, which the promises are not about.
    """

    command: ModuleType
    write_data: Callable[[Path], None]
    arguments: tuple[str, ...]
    results: tuple[str, ...]
    missing_data: str
    other_settings: tuple[tuple[tuple[str, ...], str], ...]
    unusable: tuple[tuple[tuple[str, ...], str], ...]
    data_option: str = "--data"
    fitting: tuple[ModuleType, ...] = ()
    logs: tuple[str, ...] = ("log.csv",)
    record: tuple[str, str] | None = None
    reused: str | None = None
    interruptions: tuple[Interruption, ...] = (Interruption(),)
    replace_models: Callable[[pytest.MonkeyPatch], None] = lambda patched: None

    def run(self, data: Path, out: Path, *more: str) -> int:
        """The exit status of a tiny run."""
        return self.command.main([self.data_option, str(data), "--out", str(out), *self.arguments, *more])

    def digests(self, out: Path) -> list[str]:
        """The SHA-256 of each result."""
        return [hashlib.sha256((out / result).read_bytes()).hexdigest() for result in self.results]

    def log_rows(self, out: Path) -> list[list[list[str]]]:
        """The rows of each log without the seconds, which no two runs share."""
        return [
            [line.split(",")[:1] + line.split(",")[2:] for line in (out / log).read_text().splitlines()]
            for log in self.logs
        ]

    def interrupt(self, patched: pytest.MonkeyPatch, where: Interruption) -> None:
        """Let the next run be interrupted there, as by Ctrl-C."""
        for module in self.fitting:
            fit = module.fit

            def interrupted(*arguments, fit=fit, **options):
                if where.stage not in (None, options.get("title")):
                    return fit(*arguments, **options)
                fit(*arguments, **options | {"stop_after": where.step})
                raise KeyboardInterrupt

            patched.setattr(module, "fit", interrupted)


_texts: dict[str, torch.Tensor] = {}
_embed = TextTower.__call__


def remember_texts(patched: pytest.MonkeyPatch) -> None:
    """Embed each text once a process: many tests read the thousand names of ImageNet."""

    def remembering(tower: TextTower, texts: Sequence[str]) -> torch.Tensor:
        missing = [text for text in dict.fromkeys(texts) if text not in _texts]
        _texts.update(zip(missing, _embed(tower, missing), strict=True))
        return torch.stack([_texts[text] for text in texts])

    patched.setattr(TextTower, "__call__", remembering)


def embed_by_spelling(patched: pytest.MonkeyPatch) -> None:
    """MaskFormer's class embeddings without a text tower."""
    patched.setattr(maskformer, "create_class_embedder", lambda clip, device: spelling)


def mine_by_colour(patched: pytest.MonkeyPatch) -> None:
    """Pairs from the quarters of a photo and their colours, in shards of two photos."""
    patched.setattr(pairs.proposals, "create_proposal_generator", lambda name, device: Quarters())
    patched.setattr(pairs.factory, "create_model", lambda name, device: ByColour())
    patched.setattr(pairs, "PHOTOS", 2)


def write_mini_heads_data(folder: Path) -> None:
    """Four sets, one of each kind; those with masks show restricted classes too."""
    cat, sofa = VOC.index("cat"), VOC.index("sofa")
    masks = {KEYS[0]: two_halves(cat, 20), KEYS[1]: two_halves(cat, sofa), KEYS[2]: two_halves(14, 255)}
    write_labelled_set(folder / "voc_train", VOC, masks, "cat_mirror")
    write_labelled_set(folder / "street_train", STREET, {key: two_halves(0, 2) for key in KEYS[:2]}, "tram_bus_street")
    captions = ["A pizza on a table .", "somebody bakes a pizza", "food"]
    write_described_set(
        folder / "told_train", "captions", {"a": captions, "b": ["Two dogs .", "dogs and a bus"], "c": ["one"]}
    )
    write_described_set(folder / "scene_train", "tags", {"sea1": ["sea"], "snow1": ["snow"]}, "gull_over_beach")


def write_mini_sed_data(folder: Path) -> None:
    cats = {key: two_halves(VOC.index("cat"), 20) for key in KEYS[:4]}
    write_labelled_set(folder / "voc_train", VOC, cats, "cat_mirror")
    streets = {key: two_halves(0, 2) for key in (*KEYS[:3], HELD_OUT[0])}
    write_labelled_set(folder / "street_train", STREET, streets, "tram_bus_street")


def write_mini_segclip_data(folder: Path) -> None:
    write_described_set(
        folder / "told_train",
        "captions",
        {"a": ["A pizza .", "food"], "b": ["Two dogs ."], "c": ["one"], "d": ["a", "b"]},
    )


def write_mini_tagclip_data(folder: Path) -> None:
    animals = two_halves(VOC.index("cat"), VOC.index("sheep"))
    write_labelled_set(folder / "voc_train", VOC, dict.fromkeys((*KEYS[:3], HELD_OUT[0]), animals), "cat_mirror")
    write_labelled_set(folder / "voc_dev", VOC, {"photo": animals}, "cat_mirror")
    names, streets = ["person", "road", "sky", "tree"], dict.fromkeys((*KEYS[:2], HELD_OUT[0]), two_halves(1, 2))
    write_labelled_set(folder / "coco_train", names, streets, "tram_bus_street")


def write_animals_and_streets(folder: Path) -> None:
    masks = {KEYS[0]: two_halves(0, 1), KEYS[1]: two_halves(2, 255), HELD_OUT[0]: two_halves(0, 2)}
    write_labelled_set(folder / "animals_train", ["cat", "background", "dog"], masks, "cat_mirror")
    _write_streets(folder)


def write_animals_with_sheep_and_streets(folder: Path) -> None:
    """With a class, the sheep, that TagCLIP counts as unseen on VOC."""
    masks = {
        KEYS[0]: two_halves(0, 3),
        KEYS[1]: two_halves(2, 255),
        KEYS[2]: two_halves(3, 0),
        HELD_OUT[0]: two_halves(0, 2),
    }
    write_labelled_set(folder / "animals_train", ["cat", "background", "dog", "sheep"], masks, "cat_mirror")
    _write_streets(folder)


def _write_streets(folder: Path) -> None:
    masks = {key: two_halves(0, 1) for key in KEYS[:3]}
    write_labelled_set(folder / "street_train", ["road", "sky"], masks, "tram_bus_street")


def write_coloured_pairs(folder: Path) -> None:
    words = list(COLOURS)
    folder_of(folder, [pair(words[n % 4], f"set/{n}", (20 + n, 30), n) for n in range(16)])


def write_coloured_photos(folder: Path) -> None:
    """Photos with captions of their colours, and one with labels."""
    (folder / "told_train/images").mkdir(parents=True)
    texts = {f"p{number}": captions for number, captions in enumerate(CAPTIONS)}
    (folder / "told_train/captions.json").write_text(json.dumps(texts))
    for key in texts:
        quarters(folder / f"told_train/images/{key}.jpg")
    write_labelled_set(folder / "street_train", ["road", "sky"], {KEYS[0]: two_halves(0, 1)})


def _at_least(minimum: int, *options: str) -> tuple[tuple[tuple[str, ...], str], ...]:
    """Unusable numbers, just below what these options take."""
    return tuple(
        (
            (f"--{option}", str(minimum - 1)),
            f"{option.replace('-', '_')} is {minimum - 1}, but must be {minimum} or more.",
        )
        for option in options
    )


NO_SETS = "holds no folder NAME_train"

PIPELINES = {
    "mini.heads": Pipeline(
        mini_heads,
        write_mini_heads_data,
        ("--smoke",),
        ("mini-heads.safetensors",),
        NO_SETS,
        (
            (("--restricted",), "other settings (restricted was False, now True); choose another --out."),
            (("--seed", "3"), "seed"),
        ),
        _at_least(0, "seed"),
        fitting=(mini_heads, mini_heads.dense),
        logs=("projection/log.csv", "dense/log.csv"),
        record=("id", "mini-heads"),
        reused="features",
        interruptions=(Interruption("projection head", 3), Interruption("dense head", 0)),
        replace_models=remember_texts,
    ),
    "mini.mrovseg": Pipeline(
        mini_mrovseg,
        write_mini_sed_data,
        ("--smoke",),
        (mini_mrovseg.FILE,),
        NO_SETS,
        ((("--seed", "3"), "(out_of_fold was"),),
        (*_at_least(0, "seed"), *_at_least(1, "steps")),
        fitting=(mini_mrovseg,),
        record=("file", mini_mrovseg.FILE),
        reused="views",
        replace_models=remember_texts,
    ),
    "mini.sed": Pipeline(
        mini_sed,
        write_mini_sed_data,
        ("--smoke",),
        (mini_sed.FILE,),
        NO_SETS,
        ((("--seed", "3"), "seed"),),
        _at_least(0, "seed"),
        fitting=(mini_sed,),
        logs=("decoder/log.csv",),
        record=("id", "sed-mini"),
        reused="views",
        replace_models=remember_texts,
    ),
    "mini.segclip": Pipeline(
        mini_segclip,
        write_mini_segclip_data,
        ("--smoke",),
        (mini_segclip.FILE,),
        NO_SETS,
        ((("--seed", "3"), "(schedule was"), (("--variant", "projection"), "(variant was")),
        (*_at_least(0, "seed"), *_at_least(1, "steps")),
        fitting=(mini_segclip,),
        record=("file", mini_segclip.FILE),
        reused="views",
    ),
    "mini.tagclip": Pipeline(
        mini_tagclip,
        write_mini_tagclip_data,
        ("--smoke", "--seeds", "1", "--set", "voc_train", "--variant", "tagclip"),
        (f"voc_train-tagclip-0/{experiments.FILE}",),
        "holds no voc_train",
        (),
        (),
        fitting=(experiments,),
        logs=("voc_train-tagclip-0/log.csv",),
        reused="views",
        interruptions=(Interruption(step=2),),
    ),
    "mrovseg": Pipeline(
        mrovseg,
        write_animals_and_streets,
        ("--smoke",),
        (mrovseg_saving.FILE,),
        NO_SETS,
        ((("--without", "fusion"), "(recipe was"),),
        (*_at_least(1, "steps", "batch"), *_at_least(0, "workers", "seed")),
        fitting=(mrovseg,),
        record=("file", mrovseg_saving.FILE),
        interruptions=(
            Interruption(),
            Interruption(step=2, arguments=("--fixed-views",), resumed_with=("--workers", "1")),
        ),
    ),
    "ovseg.clip": Pipeline(
        clip,
        write_coloured_pairs,
        ("--smoke",),
        ("full.safetensors", "prompts.safetensors"),
        "holds no finished pairs; python -m train.ovseg.pairs makes them, or goes on where it stopped.",
        ((("--seed", "3"), "seed"), (("--batch", "2"), "batch was 4, now 2")),
        (*_at_least(1, "batch", "epochs"), *_at_least(0, "workers", "seed")),
        data_option="--pairs",
        fitting=(clip,),
        logs=("full/log.csv", "prompts/log.csv"),
        interruptions=(Interruption("prompts", 3),),
    ),
    "ovseg.maskformer": Pipeline(
        maskformer,
        write_animals_and_streets,
        ("--smoke",),
        (trained_model.FILE,),
        NO_SETS,
        ((("--seed", "3"), "(recipe was"),),
        (*_at_least(1, "steps", "batch"), *_at_least(0, "workers", "seed")),
        fitting=(maskformer,),
        record=("file", trained_model.FILE),
        interruptions=(
            Interruption(),
            Interruption(step=2, arguments=("--backbone", "swinb"), resumed_with=("--workers", "2")),
        ),
        replace_models=embed_by_spelling,
    ),
    "sed": Pipeline(
        sed,
        write_animals_and_streets,
        ("--smoke",),
        (sed_saving.FILE,),
        NO_SETS,
        ((("--ignore", "masked"), "(recipe was"),),
        (*_at_least(1, "steps", "batch"), *_at_least(0, "workers", "seed")),
        fitting=(sed,),
        record=("file", sed_saving.FILE),
        interruptions=(Interruption(), Interruption(step=2, resumed_with=("--workers", "1"))),
    ),
    "segclip": Pipeline(
        segclip,
        write_captioned_photos,
        ("--smoke",),
        (segclip_saving.FILE,),
        NO_SETS,
        ((("--recipe", "paper"), "(recipe was"), (("--steps", "5"), "(schedule was")),
        (*_at_least(1, "steps", "batch", "chunk"), *_at_least(0, "workers", "seed")),
        fitting=(segclip,),
        record=("file", segclip_saving.FILE),
        interruptions=(Interruption(step=2, resumed_with=("--workers", "1")),),
    ),
    "tagclip": Pipeline(
        tagclip,
        write_animals_with_sheep_and_streets,
        ("--smoke", "--like", "voc"),
        (tagclip_saving.FILE,),
        NO_SETS,
        ((("--protocol", "strict"), "(protocol was 'published', now 'strict'"),),
        (*_at_least(1, "steps", "batch", "stop-after"), *_at_least(0, "workers")),
        fitting=(tagclip,),
        record=("file", tagclip_saving.FILE),
        interruptions=(
            Interruption(),
            Interruption(step=2, resumed_with=("--workers", "1")),
            Interruption(arguments=("--protocol", "strict", "--recipe", "paper")),
        ),
    ),
}
"""Pipelines that train, by their name under `train`."""

PAIRS = Pipeline(
    pairs,
    write_coloured_photos,
    (),
    tuple(f"pairs-00000{number}.tar" for number in range(3)),
    "holds no folder NAME_train with images/",
    ((("--captions", "five"), "captions was 'one', now 'five'"),),
    _at_least(1, "limit"),
    logs=(),
    replace_models=mine_by_colour,
)
"""Mines pairs and trains nothing, so that nothing of it is resumed within a training stage."""
