"""Runs of one strategy over seeds belong together: their means, and differences of means with 95% intervals.

Differences are paired by seed where both sides have two seeds or more in common: then chance that both share, such as
the model's first weights and the order of the data, is not in them. Intervals are Student's t.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy.special import stdtrit  # Student's t by its freedom and level; `scipy.stats` takes a second to import

from .run import Run

LEVEL = 0.95
NEAR = 0.01  # of a budget: what differs less is equal
LEAST = 0.001  # nats: what is nearer is level where there is no interval
# What a run may have of its own beside its seed, and belong to others all the same.
OF_ITS_OWN = (
    *("seed", "dids_seed", "data_seed", "output_dir", "logging_dir", "run_name", "overwrite_output_dir"),
    *("resume_from_checkpoint", "dids_cache_dir", "report_to", "logging_steps", "plot_loss", "disable_tqdm"),
)


class Group(NamedTuple):
    """Runs, by their places, that differ in nothing but their seeds; a run that there is no other of is one alone."""

    label: str
    members: tuple[int, ...]
    seeds: tuple[int, ...]


class Estimate(NamedTuple):
    """A mean, half its 95% interval (None of a single value), and of how many values; `how` a difference was formed."""

    mean: float
    half: float | None
    count: int
    how: str = ""

    @property
    def is_level(self) -> bool:
        """Whether a difference is none that could be told from zero."""
        return abs(self.mean) < LEAST if self.half is None else abs(self.mean) <= self.half


def groups_of(runs: Sequence[Run], labels: Sequence[str]) -> list[Group]:
    """The groups in the order of their first runs. Runs that would all be one group are compared one by one."""
    by_settings: dict[str, list[int]] = {}
    for i, run in enumerate(runs):
        by_settings.setdefault(repr(sorted(settings(run).items(), key=lambda item: item[0])), []).append(i)
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
    """What a run was made with, its seed and places apart: in a path, a folder that is named by the seed too."""
    seed = run.config.get("seed")
    marks = {str(seed), *(f"{word}{seed}" for word in ("seed", "seed_", "seed-", "s"))} if seed is not None else set()

    def without_seed(value: Any) -> Any:
        if not isinstance(value, str) or "/" not in value:
            return value
        return "/".join("*" if part in marks else part for part in value.split("/"))

    return {key: without_seed(value) for key, value in run.config.items() if key not in OF_ITS_OWN}


def are_equal(numbers: Sequence[int | None]) -> bool:
    """Whether all are known and as large as each other, but for a hundredth."""
    known = [number for number in numbers if number is not None]
    return len(known) == len(numbers) and max(known) - min(known) <= NEAR * max(known)


def mean_of(values: Sequence[float]) -> Estimate:
    """The mean of some runs' values."""
    return _estimate(np.array(values, dtype=float), "")


def difference(first: Mapping[int, float], second: Mapping[int, float]) -> Estimate:
    """The mean of `first` minus that of `second`, each by its seed."""
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
