"""What a run costs in seconds: before the training, in it, and for the updates of the mixture; kept in `cost.json`."""

import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..artifacts.files import write_json
from ..stages import ranks

FILE = "cost.json"
BEFORE = ("domain_seconds", "importance_seconds")  # of what happens before the training


class Clock:
    """Counts seconds by their keys in `cost.json`; a resumed run counts on from its checkpoint.

    `seconds`: of the training, the updates included.
    `update_seconds`: of these, measuring and choosing the mixture.
    `domain_seconds`: features of the samples and k-means; 0 where the domains were given or found in the cache.
    `importance_seconds`: features of the tasks' samples, and which domain is nearest to each.
    """

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.counted = dict.fromkeys(("update_seconds", *BEFORE), 0.0)
        self.earlier: dict[str, float] = {}  # of the processes that a resumed run went on from

    def start(self) -> None:
        """The training begins."""
        self.started = time.monotonic()

    @contextmanager
    def on(self, key: str) -> Iterator[None]:
        """Count what is done within."""
        began = time.monotonic()
        yield
        self.counted[key] += time.monotonic() - began

    def cost(self) -> dict[str, float]:
        """Seconds by their keys, of all processes that the run went on in."""
        here = {"seconds": time.monotonic() - self.started, **self.counted}
        return {key: value + self.earlier.get(key, 0.0) for key, value in here.items()}

    def write(self, folder: Path) -> None:
        """Write `cost.json`, a file of its own: the log is the same from run to run but for `seconds`."""
        if ranks.world()[0] == 0:
            write_json(folder / FILE, {key: round(value, 3) for key, value in self.cost().items()})

    def values(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        cost = self.cost()
        spent = {key: cost.pop(key) for key in BEFORE}
        return {**cost, "spent": spent}

    def restore(self, values: Mapping[str, Any]) -> None:
        """Count on from the values of a checkpoint."""
        self.counted["update_seconds"] = float(values["update_seconds"])
        # checkpoints of earlier versions have no `spent`
        self.earlier = {"seconds": float(values["seconds"]), **values.get("spent", {})}
