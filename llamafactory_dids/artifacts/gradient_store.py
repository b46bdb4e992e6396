"""The store of features on disk: one projected gradient, or one embedding, for each training sample. It is resumable.

A store is a folder. `manifest.json` holds the schema, the inputs that made the store, and its shape. Each part of
`part_rows` samples has three files: `part-00000.npy` (float16, unit rows), `norm-00000.npy` (float32, the length before
scaling) and `written-00000.npy` (bool, False if a sample has no features). A writer computes a whole part and writes
its `part-*.npy` last, so a part whose `part-*.npy` exists is complete. Any number of writers share the work without a
lock, and a run that was killed goes on with the missing parts.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DidsError
from .files import check_same, read_array, read_json, write_array, write_json

SCHEMA = 1


@dataclass(frozen=True)
class GradientStore:
    """`num_rows` samples of `dim` features below `folder`."""

    folder: Path
    num_rows: int
    dim: int
    part_rows: int

    @property
    def num_parts(self) -> int:
        return -(-self.num_rows // self.part_rows)

    def rows(self, part: int) -> range:
        """The indices of the samples in a part."""
        return range(part * self.part_rows, min((part + 1) * self.part_rows, self.num_rows))

    def missing_parts(self) -> list[int]:
        """The indices of the parts that no writer has finished."""
        return [part for part in range(self.num_parts) if not self._path("part", part).exists()]

    def write_part(
        self, part: int, unit_RK: NDArray[np.float16], norm_R: NDArray[np.float32], written_R: NDArray[np.bool_]
    ) -> None:
        """Write a finished part. `part-*.npy` is written last, and marks the part as complete."""
        write_array(self._path("norm", part), norm_R.astype(np.float32))
        write_array(self._path("written", part), written_R.astype(np.bool_))
        write_array(self._path("part", part), unit_RK.astype(np.float16))

    def read_part(self, part: int) -> tuple[NDArray[np.float16], NDArray[np.float32], NDArray[np.bool_]]:
        """Unit rows (R, K, memory-mapped), norms (R) and mask (R) of a part. Raises DidsError if a file is broken."""
        size = len(self.rows(part))
        norm_R = read_array(self._path("norm", part), (size,), "float32")
        written_R = read_array(self._path("written", part), (size,), "bool")
        return self.read_rows(part, check=True), norm_R, written_R

    def read_rows(self, part: int, check: bool = False) -> NDArray[np.float16]:
        """A part's unit rows (memory-mapped), whose checksum was looked at when the whole part was read."""
        return read_array(self._path("part", part), (len(self.rows(part)), self.dim), "float16", check)

    def read_parts(self) -> Iterator[tuple[range, NDArray[np.float16], NDArray[np.float32], NDArray[np.bool_]]]:
        """Sample indices, unit rows, norms and mask of each part, in order. Raises DidsError if a part is missing."""
        if missing := self.missing_parts():
            raise DidsError(f"{self.folder}: {len(missing)} of {self.num_parts} parts missing; run `cluster` again")
        for part in range(self.num_parts):
            yield self.rows(part), *self.read_part(part)

    def _path(self, kind: str, part: int) -> Path:
        return self.folder / f"{kind}-{part:05d}.npy"


def open_store(folder: Path, inputs: dict[str, Any], num_rows: int, dim: int, part_rows: int = 1024) -> GradientStore:
    """Create the store, or reopen a store that the same inputs made.

    Raises DidsError, with both values, for a store of other inputs or another schema.
    """
    manifest = {"schema": SCHEMA, "num_rows": num_rows, "dim": dim, "part_rows": part_rows, "inputs": inputs}
    path = folder / "manifest.json"
    if path.exists():
        found = read_json(path)
        if not isinstance(found.get("inputs"), dict):
            raise DidsError(f"{path}: not the manifest of a gradient store; delete its folder to make it anew")
        check_same(folder, found.pop("inputs"), inputs)
        check_same(folder, found, {key: value for key, value in manifest.items() if key != "inputs"})
    elif any(folder.glob("part-*.npy")):
        raise DidsError(f"{folder}: parts without manifest.json; delete the folder to make it anew")
    else:
        write_json(path, manifest)
    return GradientStore(folder, num_rows, dim, part_rows)
