"""Features in files: computed once, and a damaged file is refused by name."""

import pytest
import torch
from safetensors.torch import save_file

from train.common.feature_cache import FeatureCache
from train.common.run_folder import RunFolder, TrainingError


@pytest.fixture
def cache(tmp_path) -> FeatureCache:
    return FeatureCache(RunFolder(tmp_path, {}), ("maps", "labels"))


def never():
    raise AssertionError("computed although the file is there")


def test_features_are_computed_once(cache):
    computed = {"maps": torch.arange(4.0), "labels": torch.arange(3)}
    assert "set" not in cache
    assert cache.get("set", lambda: computed) is computed
    assert "set" in cache
    for read in (cache.get("set", never), cache.load("set")):
        assert read.keys() == computed.keys()
        assert all(torch.equal(read[name], value) for name, value in computed.items())


@pytest.mark.parametrize("tensors", [{"maps": 1}, {"maps": 1, "labels": 1, "other": 1}])
def test_a_file_with_other_tensors_is_damaged(cache, tmp_path, tensors):
    save_file({name: torch.zeros(size) for name, size in tensors.items()}, tmp_path / "set.safetensors")
    with pytest.raises(TrainingError, match=r"set\.safetensors is damaged; delete it, and it is made again\.$"):
        cache.get("set", never)


def test_a_file_that_is_gone_or_torn_is_damaged(cache, tmp_path):
    for content in (None, b"", b"torn"):
        if content is not None:
            (tmp_path / "set.safetensors").write_bytes(content)
        with pytest.raises(TrainingError, match=r"set\.safetensors is damaged"):
            cache.load("set")
