"""Runs side by side: their settings, the last loss of each task, and the shares that were fed.

Runs with the same domains are compared by domain, other runs by data set, for which every run has shares.
"""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from ..errors import DidsError
from .evaluation import budget, held_out
from .groups import Estimate, Group, are_equal, difference, groups_of, mean_of, settings
from .outcomes import task_outcomes
from .run import Floats, Run
from .shares import by_source, data_shares, in_samples

MAX_SETTINGS = 30


class Summary(NamedTuple):
    """A run in a row: the last loss of each observed task, and of each held-out set of its evaluation, if finite.

    `losses` are measured after the training began, the last at `measured_at` samples. `seconds` cover the training,
    `update_seconds` the part for the mixture, `domain_seconds` the making of the domains before; None without
    `cost.json`.
    """

    label: str
    strategy: str
    seed: int | None
    num_domains: int
    num_updates: int
    samples: int | None
    tokens: int | None
    seconds: float | None
    update_seconds: float | None
    domain_seconds: float | None
    losses: dict[str, float]
    measured_at: int | None
    held_out: dict[str, float]


class Comparison(NamedTuple):
    """Runs compared. `tasks` lists the held-out sets (`held_out`) and the observed tasks (`losses`) of all runs.
    `unit` is the unit of the shares, domain or data set, and `names` lists all of them.

    `data` has their shares of the data, `shares` their shares of each run's mixture at each line of its log.
    `compare_words.told` adds `said`, `refused` and `caution`.
    """

    runs: list[Run]
    groups: list[Group]
    summaries: list[Summary]
    tasks: dict[str, list[str]]
    unit: str
    names: list[str]
    data: Floats
    shares: list[Floats]
    said: tuple[str, ...] = ()
    refused: str = ""
    caution: str = ""

    @property
    def has_equal_budgets(self) -> bool:
        """Whether all runs were trained on equally many samples, by the trainers' own counts."""
        return are_equal([summary.samples for summary in self.summaries])

    def means(self, field: str, names: Sequence[str], group: Group) -> dict[int, float]:
        """The mean loss over some tasks (`losses`) or held-out sets (`held_out`), by seed, for the runs of a group that
        have all of them.
        """
        known = {seed: getattr(self.summaries[i], field) for i, seed in zip(group.members, group.seeds, strict=True)}
        return {
            seed: float(np.mean([losses[name] for name in names]))
            for seed, losses in known.items()
            if all(name in losses for name in names)
        }

    def common(self, field: str) -> list[str]:
        """The tasks with a loss in every run, measured after equally many samples."""
        if field == "losses" and not are_equal([summary.measured_at for summary in self.summaries]):
            return []
        return [name for name in self.tasks[field] if all(name in getattr(run, field) for run in self.summaries)]

    def line(self, field: str, names: Sequence[str]) -> tuple[list[Estimate | None], list[Estimate | None], int | None]:
        """For the mean over some tasks: each group's mean, the first group's minus each other's, and the lowest group.

        None for a group without the tasks. The lowest group is None if the two lowest are level, or budgets differ.
        """
        found = [self.means(field, names, group) for group in self.groups]
        means = [mean_of(list(values.values())) if values else None for values in found]
        differences = [difference(found[0], other) if found[0] and other else None for other in found[1:]]
        known = sorted((mean.mean, i) for i, mean in enumerate(means) if mean is not None)
        comparable = len(known) > 1 and self.has_equal_budgets and all(name in self.common(field) for name in names)
        if not comparable or difference(found[known[0][1]], found[known[1][1]]).is_level:
            return means, differences, None
        return means, differences, known[0][1]

    def different_settings(self) -> list[tuple[str, list[str]]]:
        """(key, each group's value) of the settings that differ between the groups."""
        found = [settings(self.runs[group.members[0]]) for group in self.groups]
        keys = sorted({key for values in found for key in values})
        rows = [(key, [str(values.get(key, "–")) for values in found]) for key in keys]
        return [(key, values) for key, values in rows if len(set(values)) > 1][:MAX_SETTINGS]

    def tables(self) -> dict[str, list[dict[str, Any]]]:
        """Each table by its name, for CSV files."""
        losses = []
        for field, names in self.tasks.items():
            for name in names:
                for group in self.groups:
                    for seed, loss in self.means(field, [name], group).items():
                        losses.append({"what": field, "task": name, "group": group.label, "seed": seed, "loss": loss})
        runs = [{k: v for k, v in s._asdict().items() if not isinstance(v, dict)} for s in self.summaries]
        return {"losses": losses, "runs": runs, "shares": self.last_shares()}

    def last_shares(self) -> list[dict[str, Any]]:
        """A row for each group and domain (or data set): its share of the data, and of the group's last mixture, on
        average.
        """
        ends = [(group.label, np.mean([self.shares[i][-1] for i in group.members], axis=0)) for group in self.groups]
        return [
            {self.unit.replace(" ", "_"): name, "group": label, "data": float(data), "end": float(end_D[i])}
            for i, (name, data) in enumerate(zip(self.names, self.data, strict=True))
            for label, end_D in ends
        ]

    def as_dict(self) -> dict[str, Any]:
        """The comparison for `--json`."""
        return {
            "refused": self.refused or None,
            "verdict": list(self.said),
            "groups": [group._asdict() for group in self.groups],
            "runs": [summary._asdict() for summary in self.summaries],
            "unit": self.unit,
            "shares": self.last_shares(),
        }


def compare(runs: Sequence[Run]) -> Comparison:
    """Compare two or more runs. Raises DidsError if they share neither domains nor data sets."""
    labels = _labels(runs)
    summaries = [_summary(run, label) for run, label in zip(runs, labels, strict=True)]
    groups = groups_of(runs, labels)
    unit, names, data, shares = _common_shares(runs)
    tasks = {
        field: list(dict.fromkeys(name for summary in summaries for name in getattr(summary, field)))
        for field in ("held_out", "losses")
    }
    return Comparison(list(runs), groups, summaries, tasks, unit, names, data, shares)


def _labels(runs: Sequence[Run]) -> list[str]:
    """The runs' names, with their strategy or the folder above if names repeat, or else with a number."""
    above = [f"{run.folder.resolve().parent.parent.name}/{run.name}" for run in runs]
    for labels in ([run.name for run in runs], [f"{run.name} ({run.strategy})" for run in runs], above):
        if len(set(labels)) == len(runs):
            return labels
    return [f"{i}: {run.name}" for i, run in enumerate(runs, 1)]


def _summary(run: Run, label: str) -> Summary:
    measured_U = np.isfinite(run.record.task_losses_UT).any(axis=1) & (run.record.samples_U > 0)
    trained = budget(run)
    return Summary(
        label=label,
        strategy=run.strategy,
        seed=run.config.get("seed"),
        num_domains=len(run.record.domain_names),
        num_updates=run.num_updates,
        samples=trained.samples,
        tokens=trained.tokens,
        seconds=run.seconds if run.cost or not run.is_fixed else None,
        update_seconds=run.cost.get("update_seconds"),
        domain_seconds=run.cost.get("domain_seconds"),
        losses={outcome.name: outcome.last for outcome in task_outcomes(run) if outcome.last is not None},
        measured_at=int(run.record.samples_U[measured_U][-1]) if measured_U.any() else None,
        held_out={name: loss for name, loss in held_out(run).items() if math.isfinite(loss)},
    )


def _common_shares(runs: Sequence[Run]) -> tuple[str, list[str], Floats, list[Floats]]:
    """(unit, names in the first run's order, shares of the data, table of shares of each run).

    If some runs have shares of tokens and others shares of samples, all of these are shares of samples.
    """
    probabilities, data_D = [run.record.probabilities_UD for run in runs], data_shares(runs[0])
    if len({run.lines[0].get("share_of", "samples") for run in runs}) > 1:
        probabilities = [in_samples(run, p_UD) for run, p_UD in zip(runs, probabilities, strict=True)]
        data_D = in_samples(runs[0], data_D)
    if len({frozenset(run.record.domain_names) for run in runs}) == 1 and _have_same_sizes(runs):
        unit, data = "domain", data_D
        tables = [(run.record.domain_names, p_UD) for run, p_UD in zip(runs, probabilities, strict=True)]
    else:
        known = [found for run in runs if (found := by_source(run)) is not None]
        if len(known) < len(runs) or len({frozenset(names) for names, _ in known}) > 1:
            raise DidsError(
                f"{runs[0].folder} and {runs[-1].folder}: neither the same domains nor the same data sets; "
                "allowed: runs on the same data"
            )
        unit, data = "data set", data_D @ known[0][1]
        tables = [(own, p_UD @ parts_DS) for p_UD, (own, parts_DS) in zip(probabilities, known, strict=True)]
    names = list(tables[0][0])
    return unit, names, data, [shares[:, [own.index(name) for name in names]] for own, shares in tables]


def _have_same_sizes(runs: Sequence[Run]) -> bool:
    """Whether domains of the same names may be the same. Domains made with another seed have other samples."""
    sizes = [frozenset((domain["name"], domain["size"]) for domain in run.domains) for run in runs if run.domains]
    return len(set(sizes)) < 2
