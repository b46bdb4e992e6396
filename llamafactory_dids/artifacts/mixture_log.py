"""`mixture.jsonl`: a line an update, the first one before any training.

The last one of a run that ended has `closing`: the tasks' losses and what was drawn, and no update.
"""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.simplex import mean_over
from ..errors import DidsError
from .files import write_text


class MixtureRecord(NamedTuple):
    """A run's log as arrays, float64: a row for each of its U lines, the start first.

    `samples_U` were seen when the line was written, and `probabilities_UD` applied from then on. A loss that was
    not finite, or not measured, is NaN.
    """

    samples_U: NDArray[np.float64]
    domain_names: tuple[str, ...]
    probabilities_UD: NDArray[np.float64]
    task_names: tuple[str, ...]
    task_losses_UT: NDArray[np.float64]

    def mean(self) -> dict[str, float]:
        """Each domain's mean probability over the samples of the run; the last line's counts only if it is alone."""
        mean_D = mean_over(self.samples_U, self.probabilities_UD)
        return dict(zip(self.domain_names, mean_D.tolist(), strict=True))


def find_log(path: Path) -> Path:
    """The log at `path`: itself, or in a run's output folder or its dids folder. DidsError where there is none."""
    candidates = (path, path / "mixture.jsonl", path / "dids" / "mixture.jsonl")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DidsError(f"{path}: no mixture log; allowed: a run's mixture.jsonl, or the folder of a run")


@dataclass(frozen=True)
class MixtureLog:
    """Appends to, and reads, the log of a run."""

    path: Path

    def append(self, line: dict[str, Any]) -> None:
        """Add one update; values that JSON does not have (NaN) are written as null."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with open(self.path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps(_plain(line), ensure_ascii=False, allow_nan=False) + "\n")
            stream.flush()
            os.fsync(stream.fileno())

    def read(self) -> list[dict[str, Any]]:
        """All updates in order. Raises DidsError where a line is broken.

        A last line without its end is what a killed run was writing, and does not count.
        """
        if not self.path.exists():
            return []
        text, _, _ = self.path.read_text(encoding="utf-8").rpartition("\n")
        try:
            return [json.loads(line) for line in text.splitlines() if line.strip()]
        except ValueError as error:
            raise DidsError(f"{self.path}: not a mixture log ({error})") from None

    def record(self) -> MixtureRecord:
        """All updates as arrays. Raises DidsError where there is none, or a line lacks what the first one has."""
        lines = self.read()
        try:
            samples_U = np.array([line["samples_seen"] for line in lines], dtype=np.float64)
            names, tasks = (tuple(lines[0][key]) if lines else () for key in ("probabilities", "task_loss"))
            probabilities_UD = _table(lines, "probabilities", names)
            task_losses_UT = _table(lines, "task_loss", tasks)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise DidsError(f"{self.path}: not a mixture log: a line lacks {error}") from None
        if not names or not (np.isfinite(probabilities_UD).all() and (probabilities_UD >= 0).all()):
            raise DidsError(f"{self.path}: not a whole mixture log; allowed: at least one line, with probabilities")
        if (np.diff(samples_U) <= 0).any() or (probabilities_UD.sum(axis=1) <= 0).any():
            raise DidsError(f"{self.path}: not a mixture log: samples_seen must grow and probabilities be positive")
        return MixtureRecord(samples_U, names, probabilities_UD, tasks, task_losses_UT)

    def replace(self, lines: list[dict[str, Any]]) -> None:
        """Go back to these lines, as `read` gave them: a resumed run writes again what came after."""
        write_text(self.path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines))


def _table(lines: list[dict[str, Any]], key: str, names: tuple[str, ...]) -> NDArray[np.float64]:
    """The values that each line has under `key` for the names, a row a line; null is NaN."""
    for line in lines:
        if line[key].keys() != set(names):
            raise KeyError(f"{key} of {', '.join(sorted(line[key].keys() ^ set(names)))} in some lines")
    rows = [[line[key][name] for name in names] for line in lines]
    return np.array(rows, dtype=np.float64).reshape(len(lines), len(names))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
