import pytest
import torch
from accelerate.state import AcceleratorState

from ovseg_demo.models.mini.towers import TextTower


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    """accelerate keeps one precision a process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)


@pytest.fixture(scope="module")
def remembered_texts():
    """Texts are embedded once: the thousand names of ImageNet are read many times by some modules."""
    known: dict[str, torch.Tensor] = {}
    embed = TextTower.__call__

    def remembering(tower, texts):
        missing = [text for text in dict.fromkeys(texts) if text not in known]
        known.update(zip(missing, embed(tower, missing), strict=True))
        return torch.stack([known[text] for text in texts])

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(TextTower, "__call__", remembering)
        yield
