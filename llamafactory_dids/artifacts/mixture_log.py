"""`mixture.jsonl`: a line an update, the first one before any training."""

import json
import math
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import DidsError
from .files import write_text


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

    def keep_until(self, step: int) -> None:
        """Drop what was logged after `step`: a resumed run writes it again."""
        kept = [line for line in self.read() if line["step"] <= step]
        write_text(self.path, "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
