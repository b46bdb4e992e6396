"""`mixture.jsonl`: one line for each update. The first line is written before any training.

A run that ended adds a last line with `closing`: the tasks' losses and the samples drawn, without an update.
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
from .files import DIGEST, sealed, unsealed, write_text, writing


class MixtureRecord(NamedTuple):
    """A run's log as float64 arrays, with a row for each of U lines; the first row is the start.

    `samples_U` counts the samples seen when a line was written. `probabilities_UD` applied from then on. A loss that
    was not finite, or not measured, is NaN.
    """

    samples_U: NDArray[np.float64]
    domain_names: tuple[str, ...]
    probabilities_UD: NDArray[np.float64]
    task_names: tuple[str, ...]
    task_losses_UT: NDArray[np.float64]

    def mean(self) -> dict[str, float]:
        """Mean probability of each domain over the run's samples. The last line counts only if it is the only one."""
        mean_D = mean_over(self.samples_U, self.probabilities_UD)
        return dict(zip(self.domain_names, mean_D.tolist(), strict=True))

    def last(self) -> dict[str, float]:
        """Probability of each domain at the last line."""
        return dict(zip(self.domain_names, self.probabilities_UD[-1].tolist(), strict=True))


def find_log(path: Path) -> Path:
    """The log at `path`, or in the output folder or dids folder at `path`. Raises DidsError if there is none."""
    candidates = (path, path / "mixture.jsonl", path / "dids" / "mixture.jsonl")
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise DidsError(f"{path}: no mixture log; allowed: a run's mixture.jsonl, or the folder of a run")


@dataclass(frozen=True)
class MixtureLog:
    """The log of a run, to read and to append to."""

    path: Path

    def append(self, line: dict[str, Any]) -> None:
        """Append one update. NaN and infinities are written as null."""
        with writing(self.path), open(self.path, "a", encoding="utf-8") as stream:
            stream.write(_text(_plain(line)))
            stream.flush()
            os.fsync(stream.fileno())

    def read(self) -> list[dict[str, Any]]:
        """All lines in order, empty without a file. Raises DidsError if a line is broken.

        An unfinished last line, as a run that was killed leaves it, is ignored.
        """
        if not self.path.exists():
            return []
        try:
            text, _, _ = self.path.read_text(encoding="utf-8").rpartition("\n")
            lines = [json.loads(line) for line in text.split("\n") if line.strip()]
            if len({DIGEST in line for line in lines}) > 1:  # of earlier versions none has one
                raise ValueError(f"a line lacks {DIGEST!r}")
            return [unsealed(self.path, line) for line in lines]
        except DidsError:
            raise
        except (OSError, TypeError, ValueError, RecursionError) as error:
            raise DidsError(f"{self.path}: not a mixture log ({error})") from None

    def record(self) -> MixtureRecord:
        """All lines as arrays. Raises DidsError if there is no line, or a line does not fit the first."""
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
        """Overwrite the log with these lines of `read`. A resumed run then appends the later lines again."""
        write_text(self.path, "".join(_text(line) for line in lines))


def _text(line: dict[str, Any]) -> str:
    return json.dumps(sealed(line), ensure_ascii=False, allow_nan=False) + "\n"


def _table(lines: list[dict[str, Any]], key: str, names: tuple[str, ...]) -> NDArray[np.float64]:
    """The values under `key`, shape (U, number of names); null becomes NaN. Raises KeyError if a name is missing."""
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
