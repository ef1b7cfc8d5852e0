"""MobileSAM with its bundled weights, loaded once for all tests of this folder."""

import pytest

from ovseg_demo.proposals.sam.mobile_sam import MobileSam, load_mobile_sam


@pytest.fixture(scope="session")
def mobile_sam() -> MobileSam:
    return load_mobile_sam()
