"""A run's folder, read for the pictures and the report.

Shapes: `U` lines of the log (the start first), `D` domains, `T` tasks.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

from ..artifacts.domain_map import texts_are_random
from ..artifacts.files import read_json
from ..artifacts.mixture_log import MixtureLog, MixtureRecord
from ..errors import DidsError

Floats = NDArray[np.float64]
FOLDER = "dids"  # subfolder of a run's output folder


@dataclass(frozen=True)
class Run:
    """The `dids/` folder of a run, finished or not: its log as arrays, and other files if they exist."""

    folder: Path
    record: MixtureRecord
    lines: list[dict[str, Any]]

    @property
    def name(self) -> str:
        """The run's name: the name of its output folder."""
        folder = self.folder.resolve()
        return (folder.parent if folder.name == FOLDER else folder).name

    @property
    def num_updates(self) -> int:
        """The number of updates: all lines but the first, the closing one, and the lines of a fixed mixture."""
        return sum(not (line.get("closing") or line.get("fixed")) for line in self.lines[1:])

    @property
    def num_moves(self) -> int:
        """The number of updates that changed the mixture. Others found no domain better than another beyond noise."""
        changed_UD = np.diff(self.record.probabilities_UD, axis=0) != 0
        return int(changed_UD.any(axis=1).sum())

    @property
    def is_fixed(self) -> bool:
        """Whether the mixture was never updated: the strategy makes no updates, or the run ended before the first."""
        return self.num_updates == 0

    @property
    def is_too_short(self) -> bool:
        """Whether the strategy updates the mixture, and the run ended before the first update."""
        if not self.is_fixed or any(line.get("fixed") for line in self.lines):
            return False
        measured = bool(self.lines[0].get("task_loss"))  # all that runs of earlier versions tell
        return bool(self.about.get("is_updated", measured))

    @cached_property
    def about(self) -> dict[str, Any]:
        """When, where, by what and how the run was made (`run.json`); empty without the file."""
        return self._read("run.json")

    @cached_property
    def cost(self) -> dict[str, float]:
        """The seconds in `cost.json`; empty without the file. Earlier versions wrote fewer keys."""
        return self._read("cost.json")

    @property
    def seconds(self) -> float:
        """Seconds of training: to its end by `cost.json`, else to the last line."""
        return float(self.cost.get("seconds") or self.lines[-1].get("seconds") or 0.0)

    @property
    def strategy(self) -> str:
        """The run's `mix_strategy`, or "mixture" if `config.yaml` does not tell."""
        return str(self.config.get("mix_strategy", "mixture"))

    @cached_property
    def impact_UDT(self) -> Floats:
        """Impact of each domain on each task at each line; NaN if none was measured."""
        names, tasks = self.record.domain_names, self.record.task_names
        impact_UDT = np.full((len(self.lines), len(names), len(tasks)), np.nan)
        for row_DT, line in zip(impact_UDT, self.lines, strict=True):
            measured = line.get("impact") or {}
            for i, name in enumerate(names):
                for j, task in enumerate(tasks):
                    value = measured.get(name, {}).get(task)
                    row_DT[i, j] = np.nan if value is None else value
        return impact_UDT

    @cached_property
    def domains(self) -> list[dict[str, Any]]:
        """Name, size, sources and typical texts of each domain of the log, in its order; empty without domains.json."""
        if not (content := self._map):
            return []
        try:
            known = {domain["name"]: domain for domain in content["domains"]}
            return [{"size": 0, "sources": {}, "typical_texts": [], **known[name]} for name in self.record.domain_names]
        except (KeyError, TypeError) as error:
            path = self.folder / "domains.json"
            raise DidsError(f"{path}: not the domain map of {self.folder / 'mixture.jsonl'} (lacks {error})") from None

    @property
    def texts_are_random(self) -> bool:
        """Whether the domains' texts are of random samples, not of typical ones."""
        return texts_are_random(self._map.get("inputs", {}))

    @cached_property
    def _map(self) -> dict[str, Any]:
        return self._read("domains.json")

    def _read(self, name: str) -> dict[str, Any]:
        path = self.folder / name
        return read_json(path) if path.exists() else {}

    @cached_property
    def config_text(self) -> str:
        """The text of `config.yaml`, empty without the file."""
        path = self.folder / "config.yaml"
        return path.read_text(encoding="utf-8") if path.exists() else ""

    @cached_property
    def config(self) -> dict[str, Any]:
        """The keys of `config.yaml`; empty if the file is missing or broken."""
        try:
            values = yaml.safe_load(self.config_text)
        except yaml.YAMLError:
            return {}
        return values if isinstance(values, dict) else {}


def load_run(folder: Path) -> Run:
    """Read a run's `dids/` folder. Raises DidsError, with the file's name, without a complete log."""
    log = MixtureLog(folder / "mixture.jsonl")
    lines = log.read()
    if not lines:
        raise DidsError(f"{log.path}: no updates to draw")
    return Run(folder, log.record(), lines)
