"""An update shown while the model trains: series for the trackers, and a short table for the terminal.

Shapes: `U` measurements so far, `D` domains, `T` tasks.
"""

import itertools
import shutil
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.trajectory import NOTABLE, heading, potential
from ..text import without_middle

MAX_SERIES = 50  # most domains with a series each; a dashboard with more is of no use
NUM_MOVERS = 10
NUM_MOVES = 3  # moves up, and moves down, in the table
NAME_WIDTH, NARROW_WIDTH = 28, 40  # letters of a name, if the table's parts are side by side, or stacked
WIDE = 112  # columns of a terminal that has room for both parts side by side

Floats = NDArray[np.float64]


class Progress(NamedTuple):
    """The state after an update: the probabilities at the start, before the update and now; all losses so far.

    `impact_DT` is None if no impact was measured, `losses_UT` if no task is observed. `domain_losses_D` covers the
    training samples since the last line: NaN if none was drawn, None if the model does not give losses.
    `domain_tokens_D` counts all trained tokens (labelled tokens, or pairs or answers if the loss is over these).
    """

    domains: Sequence[str]
    tasks: Sequence[str]
    start_D: Floats
    before_D: Floats
    now_D: Floats
    losses_UT: Floats | None
    impact_DT: Floats | None
    domain_losses_D: Floats | None = None
    domain_tokens_D: NDArray[np.int64] | None = None


def measured(progress: Progress, terms: Mapping[str, Floats | None]) -> dict[str, dict[str, Any]]:
    """The entries of a `mixture.jsonl` line by domain and task names. Empty for what was not measured.

    `terms` are a mixer's own values of each task.
    """
    losses_T = [] if progress.losses_UT is None else progress.losses_UT[-1].tolist()
    impact_DT = () if progress.impact_DT is None else progress.impact_DT.tolist()
    by_domain = zip(progress.domains, impact_DT, strict=False)
    return {
        "probabilities": dict(zip(progress.domains, progress.now_D.tolist(), strict=True)),
        "impact": {name: dict(zip(progress.tasks, impact_T, strict=True)) for name, impact_T in by_domain},
        "task_loss": dict(zip(progress.tasks, losses_T, strict=False)),
        **{key: _by(progress.tasks, values_T) for key, values_T in terms.items()},
        "domain_loss": _by(progress.domains, progress.domain_losses_D),
        "domain_tokens": _by(progress.domains, progress.domain_tokens_D),
    }


def _by(names: Sequence[str], values: NDArray[Any] | None) -> dict[str, Any]:
    return {} if values is None else dict(zip(names, values.tolist(), strict=True))


def tracker_series(progress: Progress) -> dict[str, float]:
    """Series for the trackers, finite values only.

    They are `dids/p/DOMAIN`, `dids/train_loss/DOMAIN`, `dids/loss/TASK`, `dids/impact/TASK/DOMAIN`, and a summary,
    `dids/mixture/…`. Beyond 50 domains only the ten furthest from their start have a series, and a task's impacts
    become their mean and extremes.
    """
    p_D, names = progress.now_D, progress.domains
    few = len(names) <= MAX_SERIES
    shown = range(len(names)) if few else np.argsort(-np.abs(p_D - progress.start_D), kind="stable")[:NUM_MOVERS]
    series = {f"dids/p/{names[i]}": float(p_D[i]) for i in shown}
    if progress.domain_losses_D is not None:
        series |= {f"dids/train_loss/{names[i]}": float(progress.domain_losses_D[i]) for i in shown}
    if progress.losses_UT is not None:
        series |= {
            f"dids/loss/{task}": float(x) for task, x in zip(progress.tasks, progress.losses_UT[-1], strict=True)
        }
    if progress.impact_DT is not None:
        for task, impact_D in zip(progress.tasks, progress.impact_DT.T, strict=True):
            series |= _impacts(f"dids/impact/{task}", impact_D, names if few else None)
    positive = p_D[p_D > 0]
    entropy = float(-(positive * np.log(positive)).sum())
    series |= {
        "dids/mixture/entropy": entropy,  # in nats
        "dids/mixture/effective_domains": float(np.exp(entropy)),
        "dids/mixture/max": float(p_D.max()),
        "dids/mixture/min": float(p_D.min()),
    }
    return {name: value for name, value in series.items() if np.isfinite(value)}


def _impacts(group: str, impact_D: Floats, names: Sequence[str] | None) -> dict[str, float]:
    if names is not None:
        return {f"{group}/{name}": float(value) for name, value in zip(names, impact_D, strict=True)}
    known = impact_D[np.isfinite(impact_D)]
    if not len(known):
        return {}
    return {
        f"{group}/mean": float(known.mean()),
        f"{group}/max": float(known.max()),
        f"{group}/min": float(known.min()),
    }


def update_table(progress: Progress, width: int | None = None) -> str:
    """The largest moves of this update, and each task's loss and trend, in a few lines. The two parts are side by side
    if the terminal (or `width`) is wide, else stacked in 80 columns.
    """
    wide = (width or shutil.get_terminal_size().columns) >= WIDE
    name_width = NAME_WIDTH if wide else NARROW_WIDTH

    def column(name: str) -> str:
        return without_middle(name, name_width).ljust(name_width)

    left = [f"  {column(name)} {before:>7} {now:>7}" for name, before, now in _moves(progress)]
    right = [
        f"  {column(task)} {loss:>8} {change:>8}  {trend}".rstrip() for task, loss, change, trend in _losses(progress)
    ]
    if not wide:
        return "\n".join([*left, *right])
    blank = " " * len(left[0])
    return "\n".join(f"{a} {b}".rstrip() for a, b in itertools.zip_longest(left, right, fillvalue=blank))


def _moves(progress: Progress) -> list[tuple[str, str, str]]:
    change_D = progress.now_D - progress.before_D
    order = np.argsort(-change_D, kind="stable")
    up = [i for i in order[:NUM_MOVES] if change_D[i] > 0]
    down = [i for i in order[-NUM_MOVES:] if change_D[i] < 0]
    rows = [
        (progress.domains[i], f"{100 * progress.before_D[i]:.2f}%", f"{100 * progress.now_D[i]:.2f}%")
        for i in [*up, *down]
    ]
    return [("domain", "before", "now"), *(row for row in rows if row[1] != row[2])]


def _losses(progress: Progress) -> list[tuple[str, str, str, str]]:
    if progress.losses_UT is None:
        return []
    rows = [("task", "loss", "change", "trend")]
    for task, losses_U in zip(progress.tasks, progress.losses_UT.T, strict=True):
        change = losses_U[-1] - losses_U[-2] if len(losses_U) > 1 else np.nan
        rows.append((task, f"{losses_U[-1]:.4f}", f"{change:+.4f}", _trend(losses_U)))
    return rows


def _trend(losses_U: Floats) -> str:
    """The direction of a task's loss, in a word or two. `report/outcomes.py` has the same rule and says how it differs.

    A loss that fell since the last update is falling, even if it was lower before.
    """
    if not np.isfinite(losses_U[-1]):
        return "not finite"
    if len(losses_U) > 1 and losses_U[-2] - losses_U[-1] > NOTABLE * losses_U[-1]:
        return "falling"
    return heading(losses_U[-1], np.nanmin(losses_U), potential(losses_U))
