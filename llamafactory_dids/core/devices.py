"""The abilities and the memory of a device, as torch reports them. Only the Triton modules name a kind elsewhere.

A kind of device that is not listed here is assumed to lack the rarer abilities. It is then slower, not wrong.
"""

from __future__ import annotations

import os
from types import ModuleType

import torch
from torch import Tensor

_FLOAT64 = ("cpu", "cuda")  # kinds that compute and send float64; MPS has none, and not every NPU or XPU has it
_WIDE_PRODUCTS = ("cuda",)  # kinds whose `torch.bmm` takes half precision and gives fp32


def here() -> torch.device:
    """The accelerator of this process, or the CPU if torch finds no accelerator."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return torch.device("cpu")
    return torch.device(kind.type, torch.accelerator.current_device_index())


def exact(device: torch.device) -> torch.device:
    """The device for float64 sums of tensors on `device`: the same device, or the CPU.

    >>> exact(torch.device("mps")), exact(torch.device("cuda"))
    (device(type='cpu'), device(type='cuda'))
    """
    return device if device.type in _FLOAT64 else torch.device("cpu")


def doubled(tensor: Tensor) -> Tensor:
    """The tensor in float64, on its own device if that has float64, else on the CPU.

    >>> doubled(torch.tensor([1.0])).dtype
    torch.float64
    """
    return tensor.to(exact(tensor.device)).double()  # in two steps: a device without float64 cannot convert


def has_wide_products(device: torch.device) -> bool:
    """Whether `torch.bmm` multiplies half precision matrices, and both adds and returns fp32."""
    return device.type in _WIDE_PRODUCTS


def memory(device: torch.device) -> tuple[int, int] | None:
    """Free and total bytes of the device; None if torch does not say.

    Memory that torch has reserved and does not use counts as free.
    """
    if device.type == "cpu":
        page = os.sysconf("SC_PAGE_SIZE")
        return page * os.sysconf("SC_AVPHYS_PAGES"), page * os.sysconf("SC_PHYS_PAGES")
    module = _module(device)
    if not hasattr(module, "mem_get_info"):
        return None
    free, total = module.mem_get_info(device)
    return free + module.memory_reserved(device) - module.memory_allocated(device), total


def release(device: torch.device) -> None:
    """Return memory that torch has reserved and does not use to the device."""
    if device.type != "cpu":
        _module(device).empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device ran out of memory. Only some backends of torch have an exception class for it."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and " out of memory" in str(error)
    )


def random_states(device: torch.device) -> list[Tensor]:
    """The states of the random generators of all devices of this kind; empty for the CPU, which uses torch's own."""
    if device.type == "cpu":
        return []
    module = _module(device)
    if device.type == "mps":  # a single device, whose functions take no number
        return [module.get_rng_state()]
    return [module.get_rng_state(number) for number in range(module.device_count())]


def set_random_states(device: torch.device, states: list[Tensor]) -> None:
    """Restore the states of `random_states`."""
    for number, state in enumerate(states):
        if device.type == "mps":
            _module(device).set_rng_state(state)
        else:
            _module(device).set_rng_state(state, number)


def _module(device: torch.device) -> ModuleType:
    """`torch.cuda`, `torch.xpu`, `torch.npu`, …"""
    return torch.get_device_module(device)  # type: ignore[no-any-return]
