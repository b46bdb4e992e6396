"""Means over seeds. What stands behind ± is half of the 95% interval by Student's t, here and wherever ± is printed."""

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from llamafactory_dids.report.groups import Estimate, mean_of

Results = Mapping[int, Mapping[str, Any]]  # lines of a run by seed


def estimate(values: Sequence[float]) -> Estimate:
    """Mean and half its interval. Raises ValueError for fewer than two values."""
    if len(values) < 2:
        raise ValueError(f"values: got {len(values)}, allowed: at least 2")
    return mean_of(values)


def plus_minus(values: Sequence[float], digits: int = 3, unit: str = "") -> str:
    """Mean ± half its interval; the value alone where there is one, a dash where there is none."""
    if not values:
        return "–"
    found = mean_of(values)
    error = "" if found.half is None else f" ± {found.half:.{digits}f}{unit}"
    return f"{found.mean:.{digits}f}{unit}".replace("-", "−") + error


def ends(values: Sequence[float]) -> str:
    """Of differences: the mean and the ends of its interval; bold where that excludes zero."""
    found = estimate(values)
    assert found.half is not None
    text = f"{found.mean:+.3f} [{found.mean - found.half:+.3f}, {found.mean + found.half:+.3f}]".replace("-", "−")
    return text if found.is_level else f"**{text}**"


def mean_loss(line: Mapping[str, Any], kind: str = "losses") -> float:
    """Over the tasks."""
    return statistics.fmean(line[kind].values())


def mean_of_runs(results: Results, kind: str = "losses") -> float:
    """Over the tasks and the seeds."""
    return statistics.fmean(mean_loss(line, kind) for line in results.values())


def paired(run: Results, other: Results, kind: str = "losses") -> list[float]:
    """Mean loss of a run less that of another, for each seed in common."""
    return [mean_loss(run[seed], kind) - mean_loss(other[seed], kind) for seed in sorted(run.keys() & other.keys())]


def difference(run: Results, other: Results, kind: str = "losses") -> str:
    """`ends` of what is paired, or the one difference; empty of a run and itself, and with no seed in common."""
    pairs = paired(run, other, kind)
    if run == other or not pairs:
        return ""
    return ends(pairs) if len(pairs) > 1 else f"{pairs[0]:+.3f} (one seed)".replace("-", "−")


def markdown(rows: Sequence[Sequence[str]], right: int = 0) -> str:
    """Rows, the first the head, as a table, the columns from `right` on set to the right if there is one."""
    width = len(rows[0])
    rule = ["---"] * (right or width) + ["---:"] * (width - (right or width))
    return "".join(f"| {' | '.join(line)} |\n" for line in (rows[0], rule, *rows[1:]))
