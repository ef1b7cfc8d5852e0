"""Bytes of models and of the machine."""

import os
from dataclasses import dataclass
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from ovseg_demo.errors import UserError
from ovseg_demo.runtime import model_memory
from ovseg_demo.runtime.model_memory import default_limit_bytes, machine_bytes, tensor_bytes
from ovseg_demo.runtime.model_store import ModelStore


def nbytes(model: object) -> int:
    return sum(tensor_bytes(model).values())


def test_parameters_and_buffers_are_counted():
    assert nbytes(nn.BatchNorm1d(10)) == 4 * 4 * 10 + 8  # two parameters, two averages, and a count in int64


def test_tensors_are_found_inside_plain_objects():
    class Slotted:
        __slots__ = ("tensor", "unset")

    @dataclass
    class Plain:
        content: object

    slotted = Slotted()
    slotted.tensor = torch.zeros(4, dtype=torch.int8)
    held = [nn.Linear(2, 3), {"a": (torch.zeros(5, dtype=torch.float16),)}, {torch.zeros(1)}, slotted]
    assert nbytes(Plain(SimpleNamespace(held=held))) == 4 * 9 + 2 * 5 + 4 + 4


def test_a_shared_storage_counts_once_and_a_circle_ends():
    whole = torch.zeros(100)
    tied = nn.Linear(10, 10, bias=False)
    holder = SimpleNamespace(view=whole[:5], whole=whole, same=nn.Sequential(tied, tied))
    holder.circle = holder
    assert nbytes(holder) == 400 + 400


def test_a_view_counts_the_storage_that_it_keeps_alive():
    assert nbytes(torch.zeros(100)[:1]) == 400


def test_tensors_without_memory_count_nothing():
    assert nbytes(nn.Linear(10, 10, device="meta")) == 0


def test_without_a_variable_half_of_the_memory_is_for_models(monkeypatch):
    monkeypatch.delenv("OVSEG_MODEL_MB", raising=False)
    assert default_limit_bytes() == machine_bytes() // 2
    assert ModelStore().limit_bytes == default_limit_bytes()
    assert 0 < machine_bytes() <= os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.parametrize(("content", "expected"), [("1000\n", 1000), ("max\n", 8000), (f"{2**63}\n", 8000)])
def test_the_limit_of_a_container_counts(monkeypatch, tmp_path, content, expected):
    (tmp_path / "memory.max").write_text(content)
    monkeypatch.setattr(model_memory, "_CONTAINER_LIMITS", (tmp_path / "memory.max", tmp_path / "absent"))
    monkeypatch.setattr(model_memory.os, "sysconf", {"SC_PAGE_SIZE": 80, "SC_PHYS_PAGES": 100}.__getitem__)
    assert machine_bytes() == expected


def test_a_machine_that_does_not_tell_its_memory_gets_a_cautious_limit(monkeypatch):
    monkeypatch.setattr(model_memory, "_CONTAINER_LIMITS", ())
    monkeypatch.delattr(model_memory.os, "sysconf")
    assert machine_bytes() == 8 * 2**30


def test_a_smaller_gpu_sets_the_limit(monkeypatch):
    monkeypatch.delenv("OVSEG_MODEL_MB", raising=False)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(total_memory=1000))
    assert default_limit_bytes("cuda:0") == 500


@pytest.mark.parametrize(("stated", "expected"), [("1500", 1_500_000_000), ("0.5", 500_000)])
def test_the_variable_sets_the_limit_in_megabytes(monkeypatch, stated, expected):
    monkeypatch.setenv("OVSEG_MODEL_MB", stated)
    assert ModelStore().limit_bytes == expected


@pytest.mark.parametrize("stated", ["much", "-1", "0", "nan", "inf"])
def test_a_senseless_variable_is_refused(monkeypatch, stated):
    monkeypatch.setenv("OVSEG_MODEL_MB", stated)
    with pytest.raises(UserError, match=f"OVSEG_MODEL_MB is '{stated}'; set it to the megabytes"):
        default_limit_bytes()
