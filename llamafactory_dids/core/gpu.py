"""Whether the Triton kernels of `kernels` can run, and how to run them over the entries of gradients."""

from __future__ import annotations

import math
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

if _HAS_TRITON := find_spec("triton") is not None:  # triton comes with torch on Linux
    from . import kernels as kernels

BLOCK, WARPS = 4096, 16  # entries and warps of a program


def has_kernels(like: Tensor) -> bool:
    """Whether there are kernels for the tensor's device."""
    return _HAS_TRITON and like.device.type == "cuda"


def run(kernel: Any, programs: tuple[int, ...], first: Tensor, *arguments: Any, **constants: int) -> None:
    """Run a kernel on the device of its first argument. Does nothing without programs."""
    if all(programs):
        with torch.cuda.device_of(first):  # type: ignore[no-untyped-call]
            kernel[programs](first, *arguments, BLOCK=BLOCK, **constants)


def run_on_rows(kernel: Any, x_NP: Tensor, *arguments: Any, **constants: int) -> None:
    """Run a kernel on each block of each row of x."""
    num_rows, num_entries = x_NP.shape
    programs = (num_rows * math.ceil(num_entries / BLOCK),)
    run(kernel, programs, x_NP, num_rows, num_entries, x_NP.stride(0), *arguments, num_warps=WARPS, **constants)
