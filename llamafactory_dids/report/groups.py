"""Groups of runs of one strategy over seeds: their means, and differences of means with 95% intervals.

Differences are paired by seed if both groups have at least two seeds in common. Chance that both share, such as the
model's first weights and the order of the data, then cancels. Intervals are Student's t.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit  # Student's t by degrees of freedom and level; `scipy.stats` takes a second to import

from .run import Run

LEVEL = 0.95
NEAR = 0.01  # share of a budget; budgets that differ by less are equal
LEAST = 0.001  # nats; without an interval, a smaller difference is level
# Keys that may differ between the runs of a group.
OF_ITS_OWN = (
    *("seed", "dids_seed", "data_seed", "output_dir", "logging_dir", "run_name", "overwrite_output_dir"),
    *("resume_from_checkpoint", "dids_cache_dir", "report_to", "logging_steps", "plot_loss", "disable_tqdm"),
)


class Group(NamedTuple):
    """Runs, by index, that differ only in their seeds. A run without such partners is a group alone."""

    label: str
    members: tuple[int, ...]
    seeds: tuple[int, ...]


class Estimate(NamedTuple):
    """A mean, half its 95% interval (None for one value), the number of values; `how` a difference was formed."""

    mean: float
    half: float | None
    count: int
    how: str = ""

    @property
    def is_level(self) -> bool:
        """Whether the difference cannot be told from zero."""
        return abs(self.mean) < LEAST if self.half is None else abs(self.mean) <= self.half


def groups_of(runs: Sequence[Run], labels: Sequence[str]) -> list[Group]:
    """The groups in the order of their first runs. If all runs would be one group, each run is its own group."""
    by_settings: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        by_settings.setdefault(repr(sorted(settings(run).items())), []).append(i)
    found = []
    for members in by_settings.values():
        seeds = [runs[i].config.get("seed") for i in members]
        together = 1 < len(members) < len(runs) and None not in seeds and len(set(seeds)) == len(seeds)
        found += [members] if together else [[i] for i in members]
    found.sort(key=lambda members: members[0])
    names = [labels[members[0]] if len(members) == 1 else runs[members[0]].strategy for members in found]
    if len(set(names)) < len(names):
        names = [f"{name} ({labels[members[0]]})" for name, members in zip(names, found, strict=True)]
    return [
        Group(name, tuple(members), tuple(int(runs[i].config.get("seed", i)) for i in members))
        for name, members in zip(names, found, strict=True)
    ]


def settings(run: Run) -> dict[str, Any]:
    """A run's settings without its seed and places. In a path, a folder named after the seed becomes `*`."""
    seed = run.config.get("seed")
    marks = {str(seed), *(f"{word}{seed}" for word in ("seed", "seed_", "seed-", "s"))} if seed is not None else set()

    def without_seed(value: Any) -> Any:
        if not isinstance(value, str) or "/" not in value:
            return value
        return "/".join("*" if part in marks else part for part in value.split("/"))

    return {key: without_seed(value) for key, value in run.config.items() if key not in OF_ITS_OWN}


def are_equal(numbers: Sequence[int | None]) -> bool:
    """Whether all numbers are known and equal within one percent."""
    known = [number for number in numbers if number is not None]
    return len(known) == len(numbers) and max(known) - min(known) <= NEAR * max(known)


def mean_of(values: Sequence[float]) -> Estimate:
    return _estimate(np.array(values, dtype=float), "")


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> Estimate:
    """The mean of `first` minus the mean of `second`, both by seed."""
    common = [seed for seed in first if seed in second]
    if len(common) > 1:
        return _estimate(np.array([first[seed] - second[seed] for seed in common]), "paired")
    a, b = (np.array(list(values.values()), dtype=float) for values in (first, second))
    mean, count = float(a.mean() - b.mean()), min(len(a), len(b))
    if count < 2:
        return Estimate(mean, None, count)
    parts = [float(x.var(ddof=1)) / len(x) for x in (a, b)]
    error = math.sqrt(sum(parts))
    if error == 0:
        return Estimate(mean, 0.0, count, "apart")
    freedom = sum(parts) ** 2 / sum(part**2 / (len(x) - 1) for part, x in zip(parts, (a, b), strict=True))
    return Estimate(mean, float(stdtrit(freedom, (1 + LEVEL) / 2)) * error, count, "apart")


def _estimate(values: Any, how: str) -> Estimate:
    count = len(values)
    if count < 2:
        return Estimate(float(values.mean()), None, count, how)
    error = float(values.std(ddof=1)) / math.sqrt(count)
    return Estimate(float(values.mean()), float(stdtrit(count - 1, (1 + LEVEL) / 2)) * error, count, how)
