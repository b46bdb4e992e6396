"""What is asked of a device, of kinds that are not here."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from llamafactory_dids.core import devices

PACKAGE = Path(devices.__file__).parents[1]
NAME_KINDS = {"devices.py", "gpu.py", "kernels.py", "fused.py"}  # of core/


def test_no_other_module_names_a_kind_of_accelerator():
    named = [
        str(path.relative_to(PACKAGE))
        for path in sorted(PACKAGE.rglob("*.py"))
        if re.search(r"\b(cuda|nccl|hip|rocm|npu|xpu|mps|hccl)\b", path.read_text(), re.IGNORECASE)
        and not (path.parent.name == "core" and path.name in NAME_KINDS)
    ]
    assert named == []


@pytest.mark.parametrize(("kind", "index", "expected"), [(None, 0, "cpu"), ("cuda", 3, "cuda:3"), ("xpu", 1, "xpu:1")])
def test_the_device_is_the_one_that_torch_has_for_this_process(monkeypatch, kind, index, expected):
    accelerator = SimpleNamespace(type=kind) if kind else None
    monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda check_available: accelerator)
    monkeypatch.setattr(torch.accelerator, "current_device_index", lambda: index)
    assert devices.here() == torch.device(expected)


@pytest.mark.parametrize(("kind", "where"), [("cuda:1", "cuda:1"), ("mps", "cpu"), ("xpu:0", "cpu"), ("cpu", "cpu")])
def test_float64_sums_are_made_where_there_is_float64(kind, where):
    assert devices.exact(torch.device(kind)) == torch.device(where)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("NPU out of memory. Tried to allocate 2 GiB"), True),
        (RuntimeError("MPS backend out of memory (MPS allocated: 1 GB)"), True),
        (RuntimeError("shapes do not match"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_memory_that_ran_out_is_known_on_each_kind_of_device(error, expected):
    assert devices.is_out_of_memory(error) == expected


@pytest.mark.parametrize("kind", ["npu", "mps"])
def test_the_random_states_of_an_accelerator_are_kept_and_put_back(monkeypatch, kind):
    states = {0: torch.tensor([1]), 1: torch.tensor([2])}
    one = SimpleNamespace(get_rng_state=lambda: states[0], set_rng_state=lambda state: states.update({0: state}))
    many = SimpleNamespace(
        device_count=lambda: 2,
        get_rng_state=lambda number: states[number],
        set_rng_state=lambda state, number: states.update({number: state}),
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: one if kind == "mps" else many)
    device = SimpleNamespace(type=kind)
    kept = devices.random_states(device)
    states.update({0: torch.tensor([7]), 1: torch.tensor([2 if kind == "mps" else 8])})
    devices.set_random_states(device, kept)
    assert [states[0].item(), states[1].item()] == [1, 2]
    assert devices.random_states(torch.device("cpu")) == []


def test_a_device_that_does_not_say_its_memory_is_not_guessed_at(monkeypatch):
    monkeypatch.setattr(torch, "get_device_module", lambda device: SimpleNamespace())
    assert devices.memory(SimpleNamespace(type="mps")) is None
    free, total = devices.memory(torch.device("cpu"))
    assert 0 < free <= total


def test_what_torch_keeps_of_a_devices_memory_counts_as_free(monkeypatch):
    module = SimpleNamespace(
        mem_get_info=lambda _: (10, 100), memory_reserved=lambda _: 30, memory_allocated=lambda _: 25
    )
    monkeypatch.setattr(torch, "get_device_module", lambda device: module)
    assert devices.memory(SimpleNamespace(type="xpu")) == (15, 100)
