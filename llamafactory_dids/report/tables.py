"""The tables of a report as rows of plain values, for both its page and CSV files."""

import csv
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..artifacts.files import write_bytes
from .evaluation import evaluations
from .impact import measured_impact
from .outcomes import perplexity, task_outcomes
from .run import Run
from .shares import Share, domain_shares, shares_by_source
from .training_losses import training_losses

Row = dict[str, Any]


def of_run(run: Run) -> dict[str, list[Row]]:
    """Each table of a run by its name, empty if there is nothing for it. Shares are parts of one."""
    return {
        "domains": [_share(share) | losses for share, losses in zip(domain_shares(run), _losses(run), strict=True)],
        "data_sets": [_share(share) for share in shares_by_source(run)],
        "tasks": [outcome._asdict() | {"change": outcome.change} for outcome in task_outcomes(run)],
        "held_out": [
            {"data_set": name, **measures, "perplexity": perplexity(measures["loss"])}
            for name, measures in evaluations(run).items()
        ],
        "impact": _impact(run),
        "training_loss": [
            {"samples": int(samples), **dict(zip(run.record.domain_names, losses_D.tolist(), strict=True))}
            for samples, losses_D in zip(*training_losses(run), strict=True)
        ],
        "mixture": [
            {"samples": int(samples), **dict(zip(run.record.domain_names, shares_D.tolist(), strict=True))}
            for samples, shares_D in zip(run.record.samples_U, run.record.probabilities_UD, strict=True)
        ],
    }


def domain_losses(run: Run) -> list[tuple[float | None, float | None]]:
    """The (first, last) training loss of each domain, in the order of the log; None if no sample was drawn."""
    found: list[tuple[float | None, float | None]] = []
    for losses_W in training_losses(run)[1].T:
        seen = losses_W[np.isfinite(losses_W)]
        found.append((float(seen[0]), float(seen[-1])) if len(seen) else (None, None))
    return found


def tells_domain_losses(run: Run) -> bool | None:
    """Whether the log has domains' training losses; None for a log of an earlier version, or without a window."""
    windows = [line for line in run.lines[1:] if "domain_loss" in line]
    return any(line["domain_loss"] for line in windows) if windows else None


def _share(share: Share) -> Row:
    return {
        "name": share.name,
        "samples": share.size,
        "share_of_data": share.data,
        "share_drawn": share.drawn,
        "share_now": share.now,
        "times": share.times,
        "drawn": share.count,
        "repeats": share.repeats,
    }


def _losses(run: Run) -> list[Row]:
    return [{"train_loss_first": first, "train_loss_last": last} for first, last in domain_losses(run)]


def _impact(run: Run) -> list[Row]:
    found = measured_impact(run)
    if found is None:
        return []
    return [
        {
            "domain": name,
            "task": task,
            "mean": float(found.mean_DT[i, j]),
            "standard_error": float(found.error_DT[i, j]),
            "task_weight": float(found.weight_T[j]),
        }
        for i, name in enumerate(run.record.domain_names)
        for j, task in enumerate(run.record.task_names)
    ]


def as_csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The rows as a CSV file with a heading. Unknown values, NaN and infinities are empty."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    stream = io.StringIO()
    writer = csv.DictWriter(stream, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows({key: _plain(value) for key, value in row.items()} for row in rows)
    return stream.getvalue().encode()


def save_tables(tables: Mapping[str, Sequence[Mapping[str, Any]]], folder: Path) -> list[Path]:
    """Write a CSV file for each table with rows. Files of an earlier report for empty tables are deleted."""
    written = []
    for name, rows in tables.items():
        path = folder / f"{name}.csv"
        if rows:
            write_bytes(path, as_csv(rows))
            written.append(path)
        else:
            path.unlink(missing_ok=True)
    return written


def _plain(value: Any) -> Any:
    return "" if isinstance(value, float) and not np.isfinite(value) else value  # `csv` leaves None empty itself
