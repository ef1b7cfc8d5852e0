"""Train the heads of the mini model.

    python -m train.mini.heads --data DIR --out runs/mini                  one process, on the GPU if there is one
    torchrun --nproc_per_node 2 -m train.mini.heads --data DIR ...         several
    python -m train.mini.heads --data DIR --out runs/smoke --smoke         everything on a few photos, in a minute

Three stages, each of which goes on where it was interrupted: features of the frozen image tower, the projection head,
the dense head. OUT/mini-heads.safetensors is what the demo loads; the line for its catalogue is printed at the end.

With --restricted no region or photo is named by a word that measures the open vocabulary, although captions may have
such words: see `train.mini.lexicon.RESTRICTED`. The features do not depend on this option, so a second run may share
the features of the first (--features).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import torch
from accelerate import PartialState
from safetensors.torch import save
from torch import Tensor
from tqdm import tqdm

from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.heads import HIDDEN, Heads, ProjectionHead
from ovseg_demo.models.mini.towers import ImageTower, TextTower
from ovseg_demo.proposals.sam import mobile_sam
from ovseg_demo.proposals.sam.mask_generator import SamMaskGenerator
from ovseg_demo.weights.catalogue import sha256_of
from train.common import command, image_sets
from train.common.image_sets import DescribedSet, LabelledSet
from train.common.labelled_batches import training_class_names
from train.common.loop import fit
from train.common.run_folder import RunFolder
from train.common.schedule import Schedule
from train.mini import views
from train.mini.conversion import half_precision
from train.mini.heads import dense, features, regions
from train.mini.heads.trained_head import TrainedHead
from train.mini.heads.windows import SMOKE_WINDOWS, WindowFeatures, WindowSizes
from train.mini.lexicon import Lexicon, drop_restricted
from train.mini.noun_matching import NOUNS, NounMatcher

PROJECTION = Schedule(steps=900, learning_rate=1e-3, save_every=100)
DENSE = Schedule(steps=2500, learning_rate=1e-3, averaging=0.995, save_every=50)
DROPOUT = 0.3

PROJECTION_WEIGHT = 0.5
"""Weight of the projection head's logits relative to the anchors'; with a smaller one training classes are recognised
less often, with a larger one all other classes."""

CAPTIONS_PER_PHOTO = 5
SMOKE_PHOTOS = 4

NOUN_PHOTOS = 300
"""Photos of each captioned set whose nouns are matched to mask proposals; a photo takes a second on two cores."""


@dataclass(frozen=True)
class HeadsConfig:
    """Everything that decides the weights."""

    restricted: bool
    photos: dict[str, int]
    projection_schedule: Schedule
    dense_schedule: Schedule
    noun_photos: int
    region_sizes: regions.RegionBatchSizes
    window_sizes: WindowSizes
    place_sizes: dense.DenseBatchSizes


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return command.run_command(lambda state: _run(parsed, state))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.mini.heads", description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds the sets, folders NAME_train")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder of the run")
    parser.add_argument("--features", type=Path, metavar="DIR", help="folder of the features (default: OUT/features)")
    parser.add_argument("--restricted", action="store_true", help="leave out what measures the open vocabulary")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    parser.add_argument("--precision", choices=("no", "bf16", "fp16"), default="no", help="default: no (float32)")
    parser.add_argument("--smoke", action="store_true", help="a few photos and steps, to see that all of it runs")
    return parser


def _run(arguments: argparse.Namespace, state: PartialState) -> int:
    limit = SMOKE_PHOTOS if arguments.smoke else None
    labelled, described = image_sets.find_sets(arguments.data, limit)
    config = _config(arguments, labelled, described)
    folder = RunFolder(arguments.out, asdict(config))
    if state.is_main_process:
        print(folder.text())
    towers = ImageTower(command.device_of(state)), TextTower(command.device_of(state))
    feature_config = {
        "photos": config.photos,
        "noun_photos": config.noun_photos,
        "views": [str(view) for view in (*views.REGION_VIEWS, *views.PHOTO_VIEWS)],
    }
    feature_folder = RunFolder(arguments.features or arguments.out / "features", feature_config)
    training_sets = [drop_restricted(source) for source in labelled] if config.restricted else labelled
    with state.main_process_first():
        targets, captions = _region_targets(config, labelled, training_sets, described, towers, feature_folder)
        windows = WindowFeatures(
            labelled, towers[0], Anchors(towers[0].device), config.window_sizes, feature_folder.path / "windows"
        )
    lexicon = Lexicon([word for target in targets for word in target.words], towers[1], config.restricted)
    batches = regions.RegionBatches(targets, captions, lexicon, config.region_sizes)
    projection = _train_projection_head(config, folder, batches, lexicon)
    lexicon = Lexicon(_words(training_sets, described), towers[1], config.restricted)
    dense_head = _train_dense_head(config, folder, training_sets, windows, lexicon)
    if state.is_main_process:
        _export(folder, projection, dense_head)
    return 0


def _config(arguments: argparse.Namespace, labelled: list[LabelledSet], described: list[DescribedSet]) -> HeadsConfig:
    photos = {s.name: len(s.dataset) for s in labelled} | {s.name: len(s.photos) for s in described}
    projection, dense_schedule = (
        replace(schedule, seed=arguments.seed, precision=arguments.precision) for schedule in (PROJECTION, DENSE)
    )
    config = HeadsConfig(
        arguments.restricted,
        photos,
        projection,
        dense_schedule,
        NOUN_PHOTOS,
        regions.RegionBatchSizes(),
        WindowSizes(),
        dense.DenseBatchSizes(),
    )
    if not arguments.smoke:
        return config
    short = {"steps": 6, "warmup": 2, "save_every": 2, "log_every": 2}
    return replace(
        config,
        noun_photos=2,
        projection_schedule=replace(config.projection_schedule, **short),
        dense_schedule=replace(config.dense_schedule, **short),
        region_sizes=regions.RegionBatchSizes(16, 8, 50),
        window_sizes=SMOKE_WINDOWS,
        place_sizes=dense.SMOKE_BATCH,
    )


def _words(labelled: Sequence[LabelledSet], described: Sequence[DescribedSet]) -> list[str]:
    """The words of all training classes and tags."""
    names = [name for source in labelled for name in training_class_names(source)]
    return names + [tags[0] for s in described if s.tags for tags in s.texts]


def _region_targets(
    config: HeadsConfig,
    labelled: Sequence[LabelledSet],
    training_sets: Sequence[LabelledSet],
    described: Sequence[DescribedSet],
    towers: tuple[ImageTower, TextTower],
    feature_folder: RunFolder,
) -> tuple[list[regions.RegionTargets], list[tuple[features.ViewFeatures, Tensor]]]:
    """Regions and whole photos with words, and photos with the embeddings of their captions."""
    image_tower, text_tower = towers
    targets = [
        _select_regions(full, part, features.encode_regions(full, image_tower, feature_folder))
        for full, part in zip(labelled, training_sets, strict=True)
    ]
    captions = []
    for source in described:
        views = features.encode_photos(source, image_tower, feature_folder)
        if source.tags:
            targets.append(regions.RegionTargets(views, tuple(tags[0] for tags in source.texts)))
            continue
        captions.append((views, _embed_captions(source, text_tower)))
        matcher = NounMatcher(
            SamMaskGenerator(mobile_sam.load_mobile_sam(device=image_tower.device), "fast"), image_tower, text_tower
        )
        matched = features.encode_matched_nouns(source, matcher, config.noun_photos, image_tower, feature_folder)
        targets.append(regions.RegionTargets(matched, tuple(NOUNS[row] for row in matched.classes), weak=True))
    return targets, captions


def _train_projection_head(
    config: HeadsConfig, folder: RunFolder, batches: regions.RegionBatches, lexicon: Lexicon
) -> TrainedHead:
    """Train the projection head."""
    torch.manual_seed(config.projection_schedule.seed)  # a resumed run may have drawn other random numbers before
    head = ProjectionHead(ImageTower.WIDTH, TextTower.WIDTH, HIDDEN, DROPOUT)
    head.standardise(batches.features)
    stage = RunFolder(folder.path / "projection", asdict(config.projection_schedule))
    training = regions.RegionTraining(head, lexicon)
    training.caption_scale.requires_grad_(
        batches.captioned
    )  # several processes wait for the gradient of every trained parameter
    fit(training, batches, config.projection_schedule, stage, title="projection head")
    return TrainedHead(head, training.word_scale.exp().item(), _mean_embedding(head, batches.features))


def _train_dense_head(
    config: HeadsConfig,
    folder: RunFolder,
    training_sets: Sequence[LabelledSet],
    windows: WindowFeatures,
    lexicon: Lexicon,
) -> TrainedHead:
    """Train the dense head on labelled photos."""
    stage = RunFolder(folder.path / "dense", asdict(config.dense_schedule))
    return dense.train_dense_head(training_sets, lexicon, windows, config.place_sizes, config.dense_schedule, stage)


def _export(folder: RunFolder, projection: TrainedHead, dense_head: TrainedHead) -> None:
    """Write OUT/mini-heads.safetensors and print its line for the catalogue."""
    heads = Heads()
    for name, trained, weight in (("projection", projection, PROJECTION_WEIGHT), ("dense", dense_head, 1.0)):
        trained.copy_to(heads, name, weight)
    name = "mini-heads.safetensors"
    folder.replace(name, lambda file: file.write(save(half_precision(heads.state_dict()))))
    path = folder.path / name
    print(json.dumps({"id": "mini-heads", "sha256": sha256_of(path), "size": path.stat().st_size}))


def _select_regions(full: LabelledSet, part: LabelledSet, views: features.ViewFeatures) -> regions.RegionTargets:
    """The regions of the photos and training classes of a part of a set, from the features of all its regions."""
    keys = set(part.keys)
    photos = torch.tensor([key in keys for key in full.keys])
    kept = views.select(photos[views.photos] & torch.tensor(part.training_classes)[views.classes])
    return regions.RegionTargets(kept, tuple(full.names[index] for index in kept.classes))


def _embed_captions(source: DescribedSet, tower: TextTower) -> Tensor:
    """Text embeddings of each photo's captions, float16 (N, T, 384), T being CAPTIONS_EACH; shorter lists repeat."""
    texts = [captions[i % len(captions)] for captions in source.texts for i in range(CAPTIONS_PER_PHOTO)]
    steps = range(0, len(texts), 1000)
    bar = tqdm(steps, desc=f"captions of {source.name}", unit="thousand", disable=None)
    return torch.cat([tower(texts[start : start + 1000]).half().cpu() for start in bar]).unflatten(
        0, (-1, CAPTIONS_PER_PHOTO)
    )


@torch.inference_mode()
def _mean_embedding(head: ProjectionHead, features: Tensor) -> Tensor:
    """The mean embedding (384,) of features (M, 1280)."""
    return torch.cat([head(part.to(head.get_buffer("mean").device)) for part in features.split(4096)]).mean(0)


if __name__ == "__main__":
    sys.exit(main())
