"""`impact.png`: what each domain was measured to do for each task, the mean over the updates.

Many domains: the most helpful and the most harmful rows by name, and beside them the distribution of all.
"""

from typing import Any

import numpy as np

from .canvas import colour, hide_frame, new_figure, short, shorten_all
from .run import Floats, Run

MAX_ROWS = 40  # domains that have a line each


def mean_impact(run: Run) -> Floats | None:
    """Mean impact over the updates, shape (D, T), NaN where it was never measured; None without any."""
    impact_UDT = run.impact_UDT
    seen_DT = np.isfinite(impact_UDT).sum(axis=0)
    if not seen_DT.any():
        return None
    sums_DT = np.nansum(impact_UDT, axis=0)
    return np.where(seen_DT > 0, sums_DT / np.maximum(seen_DT, 1), np.nan)


def impact_figure(run: Run) -> Any:
    """The figure of a run; None where no impact was measured."""
    impact_DT = mean_impact(run)
    if impact_DT is None:
        return None
    names, tasks = run.record.domain_names, run.record.task_names
    mean_D = np.nanmean(np.where(np.isfinite(impact_DT).any(axis=1, keepdims=True), impact_DT, 0.0), axis=1)
    order = np.argsort(-mean_D, kind="stable")
    many = len(names) > MAX_ROWS
    rows = order if not many else np.concatenate([order[: MAX_ROWS // 2], order[-(MAX_ROWS // 2) :]])
    # room for the names of rows and columns, in inches
    width = 3.6 + max(2.4, 0.62 * len(tasks)) + (4.2 if many else 0)
    height = 2.2 + max(1.0, (0.24 if len(rows) > 12 else 0.34) * len(rows))
    figure = new_figure(width, height)
    if many:
        left, right = figure.subplots(1, 2, width_ratios=(max(2.4, 0.62 * len(tasks)), 3.4))
        _spread(right, impact_DT, tasks)
    else:
        left = figure.subplots()
    image = _heat(left, impact_DT[rows], [names[i] for i in rows], tasks, MAX_ROWS // 2 if many else None)
    bar = figure.colorbar(image, ax=left, shrink=0.7, pad=0.02)
    distance = run.config.get("dids_impact") == "kl"
    bar.set_label("a distance: low is near" if distance else "impact: > 0 helps (blue), < 0 harms (red)", fontsize=8)
    bar.ax.tick_params(labelsize=8)
    hidden = f" (the {MAX_ROWS // 2} highest and {MAX_ROWS // 2} lowest of {len(names)})" if many else ""
    figure.suptitle(f"Impact of each domain on each task, mean over {_num_updates(run)} updates{hidden}", fontsize=11)
    return figure


def _num_updates(run: Run) -> int:
    return int(np.isfinite(run.impact_UDT).any(axis=(1, 2)).sum())


def _heat(axes: Any, impact_RT: Floats, names: list[str], tasks: tuple[str, ...], gap: int | None) -> Any:
    limit = float(np.nanmax(np.abs(impact_RT))) or 1.0
    # red-blue with white in the middle reads for all common kinds of colour blindness
    image = axes.imshow(impact_RT, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    axes.set_facecolor("#BBBBBB")  # shows through where nothing was measured
    axes.set_xticks(range(len(tasks)), shorten_all(tasks, 22), rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), shorten_all(names, 26))
    axes.tick_params(labelsize=8, length=0)
    if gap is not None:
        axes.axhline(gap - 0.5, color="black", linewidth=1.2)
    if len(names) * len(tasks) <= 200:
        _write_values(axes, impact_RT, limit)
    return image


def _write_values(axes: Any, impact_RT: Floats, limit: float) -> None:
    for (i, j), value in np.ndenumerate(impact_RT):
        if np.isfinite(value):
            shade = "white" if abs(value) > 0.6 * limit else "black"
            axes.text(j, i, f"{value:.2g}", ha="center", va="center", fontsize=7, color=shade)


def _spread(axes: Any, impact_DT: Floats, tasks: tuple[str, ...]) -> None:
    """The impacts of all domains in order, a line a task: how many help, how many harm, how strongly."""
    for j in range(min(len(tasks), 9)):
        values = np.sort(impact_DT[:, j][np.isfinite(impact_DT[:, j])])[::-1]
        axes.plot(np.arange(len(values)), values, color=colour(j), linewidth=1.5, label=short(tasks[j], 22))
    axes.axhline(0, color="#555555", linewidth=0.8)
    axes.set(xlabel="domains, in the task's order of impact", ylabel="impact")
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False)
    axes.set_title("All domains" + (f", {len(tasks)} tasks, the first 9" if len(tasks) > 9 else ""), fontsize=10)
    hide_frame(axes)
