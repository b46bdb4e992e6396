"""What runs have left: a line a seed in docs/results, and the values of a table's rows in them by seed."""

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from llamafactory_dids.artifacts.files import write_text

from .definition import AVERAGE, MINI, TASKS, Definition, Row

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs" / "results"
NOT_SCORED = ("mt_bench", "tldr")  # they need a judge model
SCORED_BY_MINI = (*TASKS, "arc_challenge", "mbpp")

Values = dict[int, float]  # by seed


def path_of(preset: str, run: str, base: str = "") -> Path:
    """The result file of a run."""
    return FOLDER / preset / (base if preset == "paper" else "") / f"{run}.jsonl"


def read(preset: str, run: str, base: str = "") -> dict[int, dict[str, Any]]:
    """The lines of a run by seed; none where it has not been made."""
    path = path_of(preset, run, base)
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {line["seed"]: line for line in map(json.loads, lines)}


def add(path: Path, line: Mapping[str, Any]) -> None:
    """Put a line in; scores of the same seed and model that it has not stay. Written beside its place and renamed."""
    lines = [json.loads(text) for text in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    known = {one["seed"]: one for one in lines}
    old = known.get(line["seed"], {})
    scores = {"scores": {**old.get("scores", {}), **line["scores"]}} if "scores" in line else {}
    known[line["seed"]] = {**old, **line, **scores}
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(json.dumps(known[seed]) + "\n" for seed in sorted(known)))


def measured(line: Mapping[str, Any]) -> dict[str, float]:
    """A line's value of each task: scores of the paper preset; losses of the mini one, unseen tasks' too."""
    return dict(line["scores"]) if "scores" in line else {**line["losses"], **line.get("unseen", {})}


class Table:
    """A definition's values in one preset. `runs` are the names that the preset knows; None is all of them."""

    def __init__(self, definition: Definition, preset: str, seeds: Sequence[int], runs: Sequence[str] | None) -> None:
        self.preset = preset
        self.folders: dict[str, Path] = {}  # what the first seed's runs left, for a table of weights
        self.seeds = tuple(seeds)
        self.is_mini = preset in MINI
        self.definition = definition = definition.in_mini() if self.is_mini else definition
        excluded = self.is_mini and definition.not_mini is not None
        wanted = [] if excluded else definition.wanted()
        self.wanted = [(run, base) for run, base in wanted if runs is None or run in runs]
        self.lines = {
            key: {seed: line for seed, line in read(preset, *key).items() if seed in self.seeds} for key in self.wanted
        }

    def scores(self, task: str) -> bool:
        """Whether the preset has values of a task at all."""
        return task in SCORED_BY_MINI if self.is_mini else task not in NOT_SCORED

    def needed(self, run: str, base: str) -> list[str]:
        """The tasks that the table wants of a run."""
        rows = [row for row in self.definition.rows if row.base == base]
        tasks = self.definition.tasks_of()
        found = {task: None for row in rows for task in tasks if row.run_of(task) == run} or dict.fromkeys(tasks)
        return [task for task in found if self.scores(task)]

    def done(self) -> int:
        """How many (run, seed) are there, with all that the table wants of them."""
        return sum(len(self.seeds) - len(self.left(run, base)) for run, base in self.wanted)

    def left(self, run: str, base: str) -> list[int]:
        """The seeds that a run lacks."""
        lines = self.lines[run, base]
        tasks = [] if self.is_mini else self.needed(run, base)  # the mini preset scores all it has at once
        return [seed for seed in self.seeds if seed not in lines or set(tasks) - set(measured(lines[seed]))]

    def values(self, row: Row, column: str) -> Values:
        """A row's value of a column, by seed: those seeds that have it."""
        if column == AVERAGE:
            parts = [self.values(row, task) for task in self.definition.tasks_of() if self.scores(task)]
            shared = set.intersection(*map(set, parts)) if parts else set()
            return {seed: statistics.fmean(part[seed] for part in parts) for seed in sorted(shared)}
        run = row.run_of(column)
        lines = self.lines.get((run, row.base), {}) if run is not None else {}
        found = {seed: measured(line) for seed, line in sorted(lines.items())}
        return {seed: values[column] for seed, values in found.items() if column in values}

    def reference(self, base: str) -> Row | None:
        """A row of the run that the others are compared with."""
        name = self.definition.reference
        return next((row for row in self.definition.rows if row.run == name and row.base == base), None)

    def difference(self, row: Row, column: str) -> list[float]:
        """Against the reference, for each seed in common."""
        other = self.reference(row.base)
        if other is None or other.run == row.run:
            return []
        ours, theirs = self.values(row, column), self.values(other, column)
        return [ours[seed] - theirs[seed] for seed in ours if seed in theirs]
