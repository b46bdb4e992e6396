"""What a device can do and has, asked of torch. No other module but those of the Triton kernels names a kind.

A kind that is not listed here is taken to lack what not all have: it computes more slowly then, not wrongly.
"""

from __future__ import annotations

import os
from types import ModuleType

import torch
from torch import Tensor

_FLOAT64 = ("cpu", "cuda")  # kinds that compute and send float64; MPS has none, an NPU and an XPU not everywhere
_WIDE_PRODUCTS = ("cuda",)  # kinds whose `torch.bmm` takes half precision and gives fp32


def here() -> torch.device:
    """The accelerator that this process computes on, or the CPU where torch finds none."""
    kind = torch.accelerator.current_accelerator(check_available=True)
    if kind is None:
        return torch.device("cpu")
    return torch.device(kind.type, torch.accelerator.current_device_index())


def exact(device: torch.device) -> torch.device:
    """Where float64 sums of what lies on `device` are made: there, or on the CPU.

    >>> exact(torch.device("mps")), exact(torch.device("cuda"))
    (device(type='cpu'), device(type='cuda'))
    """
    return device if device.type in _FLOAT64 else torch.device("cpu")


def doubled(tensor: Tensor) -> Tensor:
    """The tensor in float64, where that can be.

    >>> doubled(torch.tensor([1.0])).dtype
    torch.float64
    """
    return tensor.to(exact(tensor.device)).double()  # not in one step: a device without float64 would be asked for it


def has_wide_products(device: torch.device) -> bool:
    """Whether `torch.bmm` multiplies matrices in half precision and adds and gives fp32."""
    return device.type in _WIDE_PRODUCTS


def memory(device: torch.device) -> tuple[int, int] | None:
    """Bytes that a tensor could still have on the device, and that the device has in all; None where it does not say.

    What torch keeps for itself and does not use is free.
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
    """Give back what torch keeps of a device's memory and does not use."""
    if device.type != "cpu":
        _module(device).empty_cache()


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a device had too little memory: only some of torch's backends have an exception of their own for it."""
    return isinstance(error, torch.OutOfMemoryError) or (
        isinstance(error, RuntimeError) and " out of memory" in str(error)
    )


def random_states(device: torch.device) -> list[Tensor]:
    """The states of the random generators of all devices of its kind; none of the CPU, whose generator is torch's."""
    if device.type == "cpu":
        return []
    module = _module(device)
    if device.type == "mps":  # it is one device, and takes no number
        return [module.get_rng_state()]
    return [module.get_rng_state(number) for number in range(module.device_count())]


def set_random_states(device: torch.device, states: list[Tensor]) -> None:
    """Put back what `random_states` gave."""
    for number, state in enumerate(states):
        if device.type == "mps":
            _module(device).set_rng_state(state)
        else:
            _module(device).set_rng_state(state, number)


def _module(device: torch.device) -> ModuleType:
    """`torch.cuda`, `torch.xpu`, `torch.npu`, …"""
    return torch.get_device_module(device)  # type: ignore[no-any-return]
