"""Train "TagCLIP (mini)" with three seeds, with a trusty map and without, and measure how the map changes the scores.

    python -m train.mini.tagclip --data DIR --out runs/tagclip-mini             everything; prints a Markdown table
    python -m train.mini.tagclip --data DIR --out runs/tagclip-mini --set voc_train --seeds 1 --variant tagclip
    python -m train.mini.tagclip --data DIR --out runs/smoke --smoke            a few photos and steps, in a minute

DIR holds folders with images/, masks/ and classes.json: voc_train and coco_train, whose held-out photos are not trained
on, and voc_dev. Each training has a folder OUT/SET-VARIANT-SEED and is resumed where it was interrupted; finished
trainings are only measured. `ovseg_demo.methods.tagclip.mini` loads OUT/SET-VARIANT-SEED/tagclip-mini.safetensors of
variants with a trusty map; the bundled file is from `--set voc_train --variant shipped --seeds 1`.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState
from torch import Tensor

from eval import datasets
from eval.datasets.base import Dataset, DatasetError
from eval.datasets.split import held_out
from ovseg_demo.methods.tagclip.mini import MiniTagCLIPModel
from ovseg_demo.models.mini.anchors import Anchors
from ovseg_demo.models.mini.model import MiniModel
from ovseg_demo.models.mini.towers import ImageTower, TextTower
from ovseg_demo.vocabulary import readable_text
from ovseg_demo.weights.loading import load_for_inference
from train.common import command, image_sets
from train.common.image_sets import LabelledSet
from train.common.run_folder import RunFolder
from train.mini.tagclip import experiments, report
from train.mini.tagclip.experiments import UNSEEN, VARIANTS, TrainingRun
from train.mini.tagclip.measurement import measure_models
from train.mini.tagclip.windows import WindowFeatures

VIEWS = 3
DEV = "voc_dev"
SMOKE_PHOTOS, SMOKE_STEPS = 6, 4


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 when something failed, 2 for unusable arguments."""
    parsed = _parser().parse_args(arguments)
    return command.run_command(lambda state: _run(parsed, state))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m train.mini.tagclip", description=str(__doc__).splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="holds the sets")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="holds the folders of the runs")
    parser.add_argument("--set", action="append", choices=list(UNSEEN), help="only this one; may be given twice")
    parser.add_argument("--variant", action="append", choices=list(VARIANTS), help="only this one; may be repeated")
    parser.add_argument("--seeds", type=int, default=3, metavar="N", help="default: %(default)s")
    parser.add_argument("--smoke", action="store_true", help="a few photos and steps, to see that all of it runs")
    return parser


def _run(arguments: argparse.Namespace, state: PartialState) -> int:
    limit = SMOKE_PHOTOS if arguments.smoke else None
    wanted = arguments.set or list(UNSEEN)
    sets = [source for source in image_sets.labelled_sets(arguments.data, limit) if source.name in wanted]
    if missing := set(wanted) - {source.name for source in sets}:
        raise DatasetError(f"{arguments.data} holds no {' and no '.join(sorted(missing))} with photos to learn from.")
    steps = SMOKE_STEPS if arguments.smoke else None
    variants = arguments.variant or list(VARIANTS)
    vlm, texts = MiniModel(command.device_of(state)), TextTower(command.device_of(state))
    for source in sets:
        views = _encode_windows(source, 1 if arguments.smoke else VIEWS, arguments.out, state)
        trained = {
            run: experiments.train_run(run, views, texts, arguments.out)
            for run in experiments.training_runs(source, variants, arguments.seeds, steps)
        }
        del views
        if state.is_main_process:
            _print_measurement(trained, arguments.data, limit, vlm)
    return 0


def _encode_windows(source: LabelledSet, count: int, out: Path, state: PartialState) -> dict[str, Tensor]:
    folder = RunFolder(out / "views" / source.name, {"photos": len(source.dataset), "views": count})
    with state.main_process_first():
        return WindowFeatures(
            [source], count, ImageTower(command.device_of(state)), Anchors(command.device_of(state)), folder
        ).sets[0]


def _print_measurement(trained: dict[TrainingRun, Path], data: Path, limit: int | None, vlm: MiniModel) -> None:
    """Print the scores of all runs of one set on photos that were not trained on."""
    split_set = next(iter(trained)).split_set
    models = {
        run: load_for_inference(MiniTagCLIPModel(VARIANTS[run.variant].sizes), path) for run, path in trained.items()
    }
    for dataset in _held_out_datasets(split_set.source.name, data, limit):
        seen_names = {_coco_name(name) for name in split_set.seen}
        seen = [_coco_name(name) in seen_names for name in dataset.vocabulary.names]
        print(f"\n{split_set.source.name}, measured on {dataset.name} ({len(dataset)} photos)\n")
        print(report.results_table(measure_models(models, dataset, seen, vlm), seen), flush=True)


def _held_out_datasets(name: str, data: Path, limit: int | None) -> list[Dataset]:
    """voc_dev, and the held-out photos of the training set with this name."""
    dev, own = (datasets.open_dataset("folder_named", data / folder) for folder in (DEV, name))
    own = replace(own, samples=tuple(sample for sample in own if held_out(sample.key)))
    titled = zip((DEV, f"{name}, held out"), (dev, own), strict=True)
    return [replace(dataset, name=title, samples=dataset.samples[:limit]) for title, dataset in titled if len(dataset)]


_COCO_NAMES = {"aeroplane": "airplane", "motorbike": "motorcycle", "sofa": "couch", "tv monitor": "tv"}
"""Names of COCO by names of VOC, where the two differ."""


def _coco_name(name: str) -> str:
    name = readable_text(name)
    return _COCO_NAMES.get(name, name)


if __name__ == "__main__":
    sys.exit(main())
