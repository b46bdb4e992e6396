"""Tensors on disk, as safetensors. `files` does without this module where torch is not installed."""

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors.torch import save_file

from .files import beside

Tensors = dict[str, torch.Tensor]


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors of any device, all or nothing."""
    with beside(path) as part:
        save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part)
