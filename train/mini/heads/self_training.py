"""Self-training of the dense head: a round on labelled photos, then rounds with pseudo-labels by the head before.

Each round begins anew (Xie et al. 2020, noisy student), so that a mistake of an early head has to be made again by the
labels to stay.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

from torch import Tensor, nn

from ovseg_demo.models.mini.heads import Heads
from ovseg_demo.models.mini.towers import TextTower
from train.common.image_sets import LabelledSet
from train.common.run_folder import RunFolder
from train.common.schedule import Schedule
from train.mini.heads.dense import DenseBatchSizes, train_dense_head
from train.mini.heads.pseudo_labels import DescribedWindows, PseudoLabelRule, PseudoLabels
from train.mini.heads.windows import WindowFeatures
from train.mini.lexicon import Lexicon


@dataclass(frozen=True)
class TrainedHead:
    """A trained head.

    Attributes:
        head: in evaluation mode.
        scale: the logit scale of training, a factor on cosines.
        mean: the mean of the head's embeddings of training photos, float32 (384,).
    """

    head: nn.Module
    scale: float
    mean: Tensor

    def copy_to(self, heads: Heads, name: str, weight: float = 1.0) -> None:
        """Make this the head `name` of `heads`, "projection" or "dense", with `weight` as a factor on its logits."""
        heads.get_submodule(name).load_state_dict(self.head.state_dict())
        heads.get_buffer(f"{name}_mean").copy_(self.mean)
        heads.get_buffer(f"{name}_scale").fill_(weight * self.scale)


@dataclass(frozen=True)
class DensePhotos:
    """The photos that the dense head learns from.

    Attributes:
        labelled: labelled sets.
        windows: windows of these sets.
        described: windows of photos with captions or tags; with none of these, all rounds are on labelled photos.
        words: the words of the labelled sets and of the tags.
        restricted: whether the restricted words are left out.
    """

    labelled: Sequence[LabelledSet]
    windows: WindowFeatures
    described: DescribedWindows
    words: Sequence[str]
    restricted: bool


def train_in_rounds(
    photos: DensePhotos,
    text_tower: TextTower,
    sizes: DenseBatchSizes,
    rule: PseudoLabelRule,
    schedules: Sequence[Schedule],
    folder: RunFolder,
) -> TrainedHead:
    """The dense head of the last round; each round goes on where it was interrupted.

    Args:
        photos: the photos.
        text_tower: embeds words.
        sizes: how much is drawn in a step.
        rule: what makes a pseudo-label.
        schedules: how long and how fast to train in each round, at least one.
        folder: folder of the run; a round is in its folders "dense-N" and "pseudo-labels-N", N from 1.

    Raises:
        TrainingError: see `fit`, and when a file is damaged or cannot be written.
    """
    trained, pseudo_labels = None, None
    for number, schedule in enumerate(schedules, 1):
        if trained and photos.described.sets:
            heads = Heads().eval()
            trained.copy_to(heads, "dense")
            path = folder.path / f"pseudo-labels-{number}"
            pseudo_labels = PseudoLabels(photos.described, heads, text_tower, photos.restricted, rule, path)
        words = [*photos.words, *(pseudo_labels.words if pseudo_labels else ())]
        lexicon = Lexicon(words, text_tower, photos.restricted)
        stage = RunFolder(folder.path / f"dense-{number}", asdict(schedule))
        trained = TrainedHead(
            *train_dense_head(photos.labelled, lexicon, photos.windows, sizes, schedule, stage, pseudo_labels)
        )
    assert trained, "at least one schedule"
    return trained
