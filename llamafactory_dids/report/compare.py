"""Runs side by side: what each was, where each task ended, and the domain weights over training as in Table 9.

Table 9 of the paper has, for each of some domains, a line a method and a column each tenth of the training. Runs with
the same domains are compared by these; others by data set, whose shares every run has.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..artifacts.files import read_json
from ..errors import DidsError
from .run import Floats, Run
from .verdict import source_shares, task_outcomes

PROGRESS = tuple(range(0, 101, 10))  # per cent of the training
NUM_ROWS = 10  # domains shown, as in the paper


class Summary(NamedTuple):
    """A run in a line: the last loss of each observed task, and of each held-out set that it was evaluated on.

    `seconds` are of the training, `update_seconds` the part of them that the mixture took, `domain_seconds` what making
    the domains took before; None where no `cost.json` says.
    """

    label: str
    strategy: str
    num_domains: int
    num_updates: int
    samples: int
    seconds: float | None
    update_seconds: float | None
    domain_seconds: float | None
    losses: dict[str, float]
    held_out: dict[str, float]


class Trajectory(NamedTuple):
    """A line of Table 9: the share in % of a domain (or data set) in a run, at each tenth of the training."""

    name: str
    label: str
    shares: tuple[float, ...]


class Comparison(NamedTuple):
    """`unit` is what the trajectories are of: domain or data set; `total` of them there are."""

    summaries: list[Summary]
    tasks: list[str]
    held_out: list[str]
    unit: str
    total: int
    trajectories: list[list[Trajectory]]

    def verdict(self) -> list[str]:
        """Which run ends with the lowest loss, in words, where each run has one of the same tasks."""
        places = (
            ("held_out", self.held_out, "On the held-out data"),
            ("losses", self.tasks, "On the observed samples"),
        )
        found = [
            self._verdict(where, [getattr(run, field) for run in self.summaries], names)
            for field, names, where in places
        ]
        return [sentence for sentence in found if sentence]

    def _verdict(self, where: str, losses: list[dict[str, float]], names: list[str]) -> str:
        if not names or any(name not in known for known in losses for name in names):
            return ""
        means = [float(np.mean([known[name] for name in names])) for known in losses]
        order = np.argsort(means, kind="stable")
        first = int(order[0])
        lowest = sum(losses[first][name] == min(known[name] for known in losses) for name in names)
        others = ", ".join(f"{self.summaries[i].label} {means[i]:.3f}" for i in order[1:])
        mean = "mean loss" if len(names) > 1 else "loss"
        alone = f", and the lowest on {lowest} of {len(names)} tasks" if len(names) > 1 else ""
        return f"{where}, {self.summaries[first].label} has the lowest {mean}, {means[first]:.3f} ({others}){alone}."

    def best(self, field: str, name: str) -> float | None:
        """The lowest loss of a task, None where only one run has one; `field` is `losses` or `held_out`."""
        known = [losses[name] for summary in self.summaries if name in (losses := getattr(summary, field))]
        return min(known) if len(known) > 1 else None

    def as_dict(self) -> dict[str, Any]:
        """For a program to read."""
        return {
            "verdict": self.verdict(),
            "runs": [summary._asdict() for summary in self.summaries],
            "unit": self.unit,
            "progress_percent": list(PROGRESS),
            "shares_percent": [line._asdict() for group in self.trajectories for line in group],
        }


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare two or more runs. Raises DidsError where they have neither domains nor data sets in common."""
    labels = _labels(runs)
    summaries = [_summary(run, label) for run, label in zip(runs, labels, strict=True)]
    unit, shares = _common_shares(runs)
    by_run = [_at_progress(run.record.samples_U, table) for run, (_, table) in zip(runs, shares, strict=True)]
    names = shares[0][0]
    moved_D = np.max([np.ptp(table, axis=0) for table in by_run], axis=0)
    order = sorted(int(i) for i in np.argsort(-moved_D, kind="stable")[:NUM_ROWS])
    trajectories = [
        [Trajectory(names[i], label, tuple(table[:, i])) for label, table in zip(labels, by_run, strict=True)]
        for i in order
    ]
    return Comparison(
        summaries,
        list(dict.fromkeys(task for summary in summaries for task in summary.losses)),
        list(dict.fromkeys(name for summary in summaries for name in summary.held_out)),
        unit,
        len(names),
        trajectories,
    )


def _labels(runs: Sequence[Run]) -> list[str]:
    """The runs' names; with their strategy or a number where these are not different."""
    for labels in ([run.name for run in runs], [f"{run.name} ({run.strategy})" for run in runs]):
        if len(set(labels)) == len(runs):
            return labels
    return [f"{i}: {label}" for i, label in enumerate(labels, 1)]


def _summary(run: Run, label: str) -> Summary:
    return Summary(
        label=label,
        strategy=run.strategy,
        num_domains=len(run.record.domain_names),
        num_updates=run.num_updates,
        samples=int(run.record.samples_U[-1]),
        seconds=run.seconds if run.cost or not run.is_fixed else None,
        update_seconds=run.cost.get("update_seconds"),
        domain_seconds=run.cost.get("domain_seconds"),
        losses={outcome.name: outcome.last for outcome in task_outcomes(run)},
        held_out=held_out(run),
    )


def held_out(run: Run) -> dict[str, float]:
    """The losses of the host's own evaluation after the training, where it made one."""
    path = run.folder.resolve().parent / "all_results.json"
    found = read_json(path) if path.exists() else {}
    if not isinstance(found, dict):
        return {}
    return {
        key.removeprefix("eval_").removesuffix("_loss"): float(value)
        for key, value in found.items()
        if key.startswith("eval_") and key.endswith("_loss") and isinstance(value, int | float)
    }


def _common_shares(runs: Sequence[Run]) -> tuple[str, list[tuple[list[str], Floats]]]:
    """What the runs are compared by, and each run's names and shares of it, in the first run's order."""
    by_domain = [(list(run.record.domain_names), run.record.probabilities_UD) for run in runs]
    if len({frozenset(names) for names, _ in by_domain}) == 1:
        return "domain", [_ordered(by_domain[0][0], *found) for found in by_domain]
    by_source = [source_shares(run) for run in runs]
    known = [found for found in by_source if found is not None]
    if len(known) < len(runs) or len({frozenset(names) for names, _ in known}) > 1:
        raise DidsError(
            f"{runs[0].folder} and {runs[-1].folder}: neither the same domains nor the same data sets; "
            "allowed: runs on the same data"
        )
    return "data set", [_ordered(known[0][0], *found) for found in known]


def _ordered(names: list[str], own: list[str], shares_UD: Floats) -> tuple[list[str], Floats]:
    return names, shares_UD[:, [own.index(name) for name in names]]


def _at_progress(samples_U: Floats, shares_UD: Floats) -> Floats:
    """The shares in % that applied at each tenth of the run, shape (11, D): those of the last line before it."""
    at = np.array(PROGRESS) / 100 * samples_U[-1]
    shares_PD: Floats = 100 * shares_UD[np.searchsorted(samples_U, at + 1e-6, side="right") - 1]
    return shares_PD
