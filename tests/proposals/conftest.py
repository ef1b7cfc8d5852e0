"""MobileSAM with its bundled weights, loaded once for all tests of this folder."""

import pytest

from ovseg_demo.proposals.mobile_sam import MobileSam, load


@pytest.fixture(scope="session")
def mobile_sam() -> MobileSam:
    return load()
