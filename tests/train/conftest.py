import pytest
from accelerate.state import AcceleratorState


@pytest.fixture(autouse=True)
def _fresh_accelerate():
    """accelerate keeps one precision a process."""
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
