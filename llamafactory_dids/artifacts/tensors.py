"""Tensors on disk, as safetensors. `files` does without this module where torch is not installed."""

from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import DidsError
from .files import DIGEST, beside, digest

Tensors = dict[str, torch.Tensor]


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor]) -> None:
    """Write tensors of any device, all or nothing."""
    content = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with beside(path) as part:
        save_file(content, part, {DIGEST: digest(_parts(content))})


def read_tensors(path: Path, advice: str) -> Tensors:
    """What `write_tensors` wrote. Raises DidsError, with the file's name, where it is missing, broken or changed."""
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata()  # none in files of earlier versions
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise DidsError(f"{path}: not readable ({error}); {advice}") from None
    if metadata is not None and metadata.get(DIGEST) != digest(_parts(tensors)):
        raise DidsError(f"{path}: changed since it was written; {advice}")
    return tensors


def _parts(tensors: Tensors) -> Iterator[bytes | memoryview]:
    for name, tensor in sorted(tensors.items()):
        yield f"{name}\n{tensor.dtype}{list(tensor.shape)}".encode()
        yield torch.cat([tensor.reshape(-1)]).view(torch.uint8).numpy().data  # a copy: one number may have any stride
