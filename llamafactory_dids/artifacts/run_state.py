"""The mixture's part of a checkpoint: `dids_state.json`, `dids_state.safetensors`, and a share for each further rank.

`dids_state.json` is written last and lists the size of every other file of the checkpoint. A checkpoint that was cut
off is therefore recognised, no matter which program wrote the missing part.
"""

from pathlib import Path
from typing import Any

from ..errors import DidsError
from .files import read_json, write_json
from .tensors import Tensors, read_tensors, write_tensors

SCHEMA = 3
MARKER = "dids_state.json"
ANOTHER = "resume from another checkpoint"


def save_share(folder: Path, rank: int, tensors: Tensors) -> None:
    """Write the tensors of a rank other than the first; the first rank's tensors are in the state."""
    write_tensors(_share_path(folder, rank), tensors)


def save_state(folder: Path, values: dict[str, Any], tensors: Tensors) -> None:
    """Write plain values and tensors, after all other files of the checkpoint."""
    write_tensors(folder / "dids_state.safetensors", tensors)
    write_json(folder / MARKER, {"schema": SCHEMA, **values, "files": _sizes(folder)})


def discard_state(folder: Path) -> None:
    """Mark a checkpoint as incomplete, before it is written again."""
    (folder / MARKER).unlink(missing_ok=True)


def load_values(folder: Path) -> dict[str, Any]:
    """The plain values of `save_state`. Raises DidsError, with a file's name, if the checkpoint is incomplete."""
    path = folder / MARKER
    values = read_json(path)
    schema = values.get("schema")
    if schema != SCHEMA or not isinstance(values.get("files"), dict):
        raise DidsError(f"{path}: schema {schema!r}, this version reads {SCHEMA}, with sizes of files; {ANOTHER}")
    found = _sizes(folder)
    for name, size in values["files"].items():
        if found.get(name) != size:
            state = "no such file" if name not in found else f"{found[name]} bytes of {size}"
            raise DidsError(f"{folder / name}: {state}; {ANOTHER}")
    return values


def load_tensors(folder: Path) -> Tensors:
    """The tensors of `save_state`. Raises DidsError, with the file's name, if they are missing or broken."""
    return read_tensors(folder / "dids_state.safetensors", ANOTHER)


def load_share(folder: Path, rank: int) -> Tensors:
    """The tensors of `save_share`. Raises DidsError, with the file's name, if they are missing or broken."""
    return read_tensors(_share_path(folder, rank), ANOTHER)


def whole_checkpoints(output_dir: Path) -> list[Path]:
    """The complete checkpoints of a run's folder, the latest first. A run can resume from each of them."""
    steps = {path: path.name.rpartition("-")[2] for path in output_dir.glob("checkpoint-*")}
    ordered = sorted((p for p, step in steps.items() if step.isdigit()), key=lambda p: int(steps[p]), reverse=True)
    return [path for path in ordered if is_whole(path)]


def is_whole(folder: Path) -> bool:
    """Whether `load_values` accepts the checkpoint."""
    try:
        load_values(folder)
    except DidsError:
        return False
    return True


def _share_path(folder: Path, rank: int) -> Path:
    return folder / f"dids_state.rank{rank}.safetensors"


def _sizes(folder: Path) -> dict[str, int]:
    """Size in bytes of each file of a checkpoint, without the marker."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file() and path != folder / MARKER)
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}
