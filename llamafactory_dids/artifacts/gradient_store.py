"""The store of features: one projected gradient, or one embedding, a training sample, on disk, resumable.

A folder of `manifest.json` (schema, the inputs that made it, shape), and for each run of `part_rows` samples
`part-00000.npy` (float16, unit rows), `norm-00000.npy` (float32, the length before scaling) and
`written-00000.npy` (bool; False where a sample has none). A part is computed whole and its file
`part-*.npy` is written last, so the parts that exist are the parts that are done: any number of writers
may share the work without a lock, and a killed run goes on with the parts that are missing.
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
        """How many part files a complete store has."""
        return -(-self.num_rows // self.part_rows)

    def rows(self, part: int) -> range:
        """The samples that a part holds."""
        return range(part * self.part_rows, min((part + 1) * self.part_rows, self.num_rows))

    def missing_parts(self) -> list[int]:
        """Parts that no writer has finished."""
        return [part for part in range(self.num_parts) if not self._path("part", part).exists()]

    def write_part(
        self, part: int, unit_RK: NDArray[np.float16], norm_R: NDArray[np.float32], written_R: NDArray[np.bool_]
    ) -> None:
        """Write a finished part; `part-*.npy` comes last and so says that the part is whole."""
        write_array(self._path("norm", part), norm_R.astype(np.float32))
        write_array(self._path("written", part), written_R.astype(np.bool_))
        write_array(self._path("part", part), unit_RK.astype(np.float16))

    def read_part(self, part: int) -> tuple[NDArray[np.float16], NDArray[np.float32], NDArray[np.bool_]]:
        """A part's unit rows (memory-mapped), norms and mask; raises DidsError where a file is broken."""
        size = len(self.rows(part))
        unit_RK = read_array(self._path("part", part), (size, self.dim), "float16")
        norm_R = read_array(self._path("norm", part), (size,), "float32")
        written_R = read_array(self._path("written", part), (size,), "bool")
        return unit_RK, norm_R, written_R

    def read_parts(self) -> Iterator[tuple[range, NDArray[np.float16], NDArray[np.float32], NDArray[np.bool_]]]:
        """All parts in order, each with the samples it holds; raises DidsError if one is missing."""
        if missing := self.missing_parts():
            raise DidsError(f"{self.folder}: {len(missing)} of {self.num_parts} parts missing; run `cluster` again")
        for part in range(self.num_parts):
            yield self.rows(part), *self.read_part(part)

    def _path(self, kind: str, part: int) -> Path:
        return self.folder / f"{kind}-{part:05d}.npy"


def open_store(folder: Path, inputs: dict[str, Any], num_rows: int, dim: int, part_rows: int = 1024) -> GradientStore:
    """Create the store, or go on with the one that is there if the same inputs made it.

    Raises DidsError, with both values, for a store made from other inputs or in another schema.
    """
    manifest = {"schema": SCHEMA, "num_rows": num_rows, "dim": dim, "part_rows": part_rows, "inputs": inputs}
    path = folder / "manifest.json"
    if path.exists():
        found = read_json(path)
        if not isinstance(found, dict) or not isinstance(found.get("inputs"), dict):
            raise DidsError(f"{path}: not the manifest of a gradient store; delete its folder to make it anew")
        check_same(folder, found.pop("inputs"), inputs)
        check_same(folder, found, {key: value for key, value in manifest.items() if key != "inputs"})
    elif any(folder.glob("part-*.npy")):
        raise DidsError(f"{folder}: parts without manifest.json; delete the folder to make it anew")
    else:
        write_json(path, manifest)
    return GradientStore(folder, num_rows, dim, part_rows)
