"""The cost of a run in seconds: before training, in training, and for the updates; kept in `cost.json`."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..artifacts.files import write_json
from ..stages import ranks

FILE = "cost.json"
BEFORE = ("domain_seconds", "importance_seconds")  # keys of the work before training


class Clock:
    """Counts seconds by their keys in `cost.json`. A resumed run goes on counting from its checkpoint.

    `seconds`: training, updates included. `update_seconds`: the part of `seconds` that measures and updates the
    mixture. `domain_seconds`: features of the samples and k-means; 0 if the domains were given or cached.
    `importance_seconds`: features of the tasks' samples, and the domain nearest to each sample.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.counted = dict.fromkeys(("update_seconds", *BEFORE), 0.0)
        self.earlier: dict[str, float] = {}  # seconds of the interrupted processes that this run resumes

    def start(self) -> None:
        """Mark the beginning of the training."""
        self.started = time.monotonic()

    @contextmanager
    def on(self, key: str) -> Iterator[None]:
        """Count the time spent inside this context under `key`."""
        began = time.monotonic()
        yield
        self.counted[key] += time.monotonic() - began

    def cost(self) -> dict[str, float]:
        """Seconds by key, added up over this process and the interrupted ones that it resumes."""
        here = {"seconds": time.monotonic() - self.started, **self.counted}
        return {key: value + self.earlier.get(key, 0.0) for key, value in here.items()}

    def write(self, folder: Path) -> None:
        """Write `cost.json`. With seconds in a file of their own, the mixture log repeats exactly but for `seconds`."""
        if ranks.world()[0] == 0:
            write_json(folder / FILE, {key: round(value, 3) for key, value in self.cost().items()})

    def values(self) -> dict[str, Any]:
        """The values to save in a checkpoint."""
        cost = self.cost()
        spent = {key: cost.pop(key) for key in BEFORE}
        return {**cost, "spent": spent}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Go on counting from the values of a checkpoint."""
        trained = {key: float(values[key]) for key in ("seconds", "update_seconds")}
        self.earlier = trained | values.get("spent", {})  # checkpoints of earlier versions have no `spent`
