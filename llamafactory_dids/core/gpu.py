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


def run_on_rows(kernel: Any, x_NP: Tensor, *arguments: Any, **constants: int) -> None:
    """Run a kernel on each block of each row of x, on its device. Does nothing without rows."""
    num_rows, num_entries = x_NP.shape
    if programs := num_rows * math.ceil(num_entries / BLOCK):
        where = num_rows, num_entries, x_NP.stride(0)
        with torch.cuda.device_of(x_NP):  # type: ignore[no-untyped-call]
            kernel[(programs,)](x_NP, *where, *arguments, BLOCK=BLOCK, num_warps=WARPS, **constants)
