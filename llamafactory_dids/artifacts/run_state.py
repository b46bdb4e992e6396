"""`dids_state.json` and `dids_state.safetensors`: what a checkpoint holds of the mixture."""

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ..errors import DidsError
from .files import read_json, write_json

SCHEMA = 1


def save_state(folder: Path, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
    """Write plain values and tensors; the JSON file comes last and says that both are whole."""
    part = folder / "dids_state.safetensors.part"
    save_file({name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}, part)
    part.replace(folder / "dids_state.safetensors")
    write_json(folder / "dids_state.json", {"schema": SCHEMA, **values})


def load_state(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read what `save_state` wrote. Raises DidsError, with the file's name, where it is missing or broken."""
    values = read_json(folder / "dids_state.json")
    schema = values.get("schema") if isinstance(values, dict) else None
    if schema != SCHEMA:
        raise DidsError(f"{folder / 'dids_state.json'}: schema {schema!r}, this version reads {SCHEMA}")
    path = folder / "dids_state.safetensors"
    try:
        return values, load_file(path)
    except (OSError, SafetensorError) as error:
        raise DidsError(f"{path}: not readable ({error}); resume from another checkpoint") from None
