"""`token_losses.safetensors`: a trained model's loss on each labelled token, kept as a reference for later runs."""

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from ..errors import DidsError
from .tensors import read_tensors, write_tensors

FILE = "token_losses.safetensors"


def save_token_losses(folder: Path, tables: Mapping[str, tuple[Tensor, Tensor]]) -> None:
    """Write (losses_NS, counts_N) of each task or domain, all or nothing."""
    tensors = {}
    for name, (losses_NS, counts_N) in tables.items():
        tensors[f"losses:{name}"] = losses_NS
        tensors[f"counts:{name}"] = counts_N
    write_tensors(folder / FILE, tensors)


def load_token_losses(folder: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """(losses_NS, counts_N) by task or domain. Raises DidsError, with the file's name, on a missing or broken file."""
    tensors = read_tensors(folder / FILE, "delete its folder to make it anew")
    names = [name.removeprefix("losses:") for name in tensors if name.startswith("losses:")]
    try:
        return {name: (tensors[f"losses:{name}"], tensors[f"counts:{name}"]) for name in names}
    except KeyError as error:
        raise DidsError(f"{folder / FILE}: not readable (no {error}); delete its folder to make it anew") from None
