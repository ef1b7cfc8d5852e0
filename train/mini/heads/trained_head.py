"""A head as training leaves it, and how it becomes a part of the mini model."""

from dataclasses import dataclass

from torch import Tensor, nn

from ovseg_demo.models.mini.heads import Heads


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
