"""`impact.png`: each domain's measured impact on each task: the mean over the updates, and its standard error.

Rows are sorted by the present share of the mixture, the largest first, and show the domain's share of the data too.
With many domains, the largest shares and moves have a row, and a second panel shows the distribution of all impacts.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from .canvas import hide_frame, new_figure, short
from .colours import colour
from .run import Floats, Run
from .shares import data_shares, named_domains
from .words import percent, t

MAX_ROWS = 40  # most domains with a row each
MAX_NUMBERS = 240  # most cells with numbers
SURE = 2.0  # standard errors from zero that are beyond chance


class Impact(NamedTuple):
    """Mean over the updates (D, T), its standard error (D, T), and the mean weight of each task (T). NaN for a mean
    without an update, for an error of fewer than two, and for a weight that the log does not have.
    """

    mean_DT: Floats
    error_DT: Floats
    weight_T: Floats
    num_updates: int

    def overall_D(self) -> Floats:
        """The mean over the tasks (D), by their weights if known; NaN if nothing was measured."""
        weight_T = np.where(np.isfinite(self.weight_T), self.weight_T, 1.0)
        weight_DT = np.where(np.isfinite(self.mean_DT), weight_T, 0.0)
        total_D = weight_DT.sum(axis=1)
        sums_D = np.nansum(self.mean_DT * weight_DT, axis=1)
        return np.where(total_D > 0, sums_D / np.where(total_D > 0, total_D, 1), np.nan)

    def strongest(self, domain: int) -> int | None:
        """The task with the domain's surest impact: furthest from zero, in errors. None if none was measured."""
        mean_T, error_T = self.mean_DT[domain], self.error_DT[domain]
        if not np.isfinite(mean_T).any():
            return None
        strength_T = np.abs(mean_T) / np.where(error_T > 0, error_T, 1.0)
        return int(np.nanargmax(strength_T))


def measured_impact(run: Run) -> Impact | None:
    """The impact over all updates; None without any measurement."""
    impact_UDT = run.impact_UDT
    seen_DT = np.isfinite(impact_UDT).sum(axis=0)
    if not seen_DT.any():
        return None
    mean_DT = np.where(seen_DT > 0, np.nansum(impact_UDT, axis=0) / np.maximum(seen_DT, 1), np.nan)
    squares_DT = np.nansum((impact_UDT - mean_DT) ** 2, axis=0)
    deviation_DT = np.sqrt(squares_DT / np.maximum(seen_DT - 1, 1))
    error_DT = np.where(seen_DT > 1, deviation_DT / np.sqrt(np.maximum(seen_DT, 1)), np.nan)
    weights = [line["task_weight"] for line in run.lines if line.get("task_weight")]
    weight_UT = np.array([[row.get(task, np.nan) for task in run.record.task_names] for row in weights], dtype=float)
    weight_T = weight_UT.mean(axis=0) if len(weight_UT) else np.full(len(run.record.task_names), np.nan)
    return Impact(mean_DT, error_DT, weight_T, int(np.isfinite(impact_UDT).any(axis=(1, 2)).sum()))


def impact_figure(run: Run) -> Any:
    """The figure of a run; None if no impact was measured."""
    found = measured_impact(run)
    if found is None:
        return None
    names, tasks = run.record.domain_names, run.record.task_names
    data_D, shares_UD = data_shares(run), run.record.probabilities_UD
    many = len(names) > MAX_ROWS
    rows = sorted(named_domains(data_D, shares_UD, MAX_ROWS), key=lambda i: -float(shares_UD[-1, i]))
    # room for the names of rows and columns, in inches
    width = 4.8 + max(2.4, 0.9 * len(tasks)) + (4.2 if many else 0)
    height = 2.4 + max(1.0, (0.24 if len(rows) > 12 else 0.34) * len(rows))
    figure = new_figure(width, height)
    if many:
        left, right = figure.subplots(1, 2, width_ratios=(max(2.4, 0.9 * len(tasks)), 3.4))
        _spread(right, found.mean_DT, tasks)
    else:
        left = figure.subplots()
    labels = [f"{short(names[i], 24)}  {percent(data_D[i])} → {percent(shares_UD[-1, i])}" for i in rows]
    image = _heat(left, found, rows, labels, tasks)
    bar = figure.colorbar(image, ax=left, shrink=0.7, pad=0.02)
    distance = run.config.get("dids_impact") == "kl"
    bar.set_label(
        t("a distance: low is near") if distance else t("impact: > 0 helps (blue), < 0 harms (red)"), fontsize=8
    )
    bar.ax.tick_params(labelsize=8)
    title = t("Impact of each domain on each task, mean ± standard error of {count} updates", count=found.num_updates)
    figure.suptitle(title, fontsize=11)
    return figure


def _heat(axes: Any, found: Impact, rows: list[int], labels: list[str], tasks: tuple[str, ...]) -> Any:
    mean_RT, error_RT = found.mean_DT[rows], found.error_DT[rows]
    limit = float(np.nanmax(np.abs(mean_RT))) if np.isfinite(mean_RT).any() else 0.0
    limit = limit or 1.0
    sure_RT = np.where(np.abs(mean_RT) < SURE * error_RT, 0.35, 1.0)  # possible chance is pale
    # red-blue with white in the middle reads for all common kinds of colour blindness
    image = axes.imshow(
        mean_RT, cmap="RdBu", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest", alpha=sure_RT
    )
    axes.set_facecolor("#BBBBBB" if not np.isfinite(mean_RT).all() else "white")  # seen in empty cells
    weights = ["" if not np.isfinite(w) else "\n" + t("weight {weight}", weight=percent(w)) for w in found.weight_T]
    columns = [short(name, 22) + weight for name, weight in zip(tasks, weights, strict=True)]
    axes.set_xticks(range(len(tasks)), columns, rotation=40, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(labels)), labels)
    axes.set_ylabel(t("domain: share of the data → now"), fontsize=8)
    axes.tick_params(labelsize=8, length=0)
    if mean_RT.size <= MAX_NUMBERS:
        _write_values(axes, mean_RT, error_RT, limit)
    return image


def decimals(limit: float) -> int:
    """The number of decimals that shows two digits of the largest number."""
    return max(0, 1 - math.floor(math.log10(limit or 1.0)))


def _write_values(axes: Any, mean_RT: Floats, error_RT: Floats, limit: float) -> None:
    digits = decimals(limit)
    for (i, j), value in np.ndenumerate(mean_RT):
        if not np.isfinite(value):
            continue
        error = error_RT[i, j]
        sure = not np.isfinite(error) or abs(value) >= SURE * error
        text = f"{value:+.{digits}f}" + ("" if not np.isfinite(error) else f" ±{error:.{digits}f}")
        shade = "white" if sure and abs(value) > 0.6 * limit else "black"
        axes.text(j, i, text, ha="center", va="center", fontsize=7, color=shade)


def _spread(axes: Any, impact_DT: Floats, tasks: tuple[str, ...]) -> None:
    """The sorted impacts of all domains, a line for each task: how many help, how many harm, how strongly."""
    for j in range(min(len(tasks), 9)):
        values = np.sort(impact_DT[:, j][np.isfinite(impact_DT[:, j])])[::-1]
        axes.plot(np.arange(len(values)), values, color=colour(j), linewidth=1.5, label=short(tasks[j], 22))
    axes.axhline(0, color="#555555", linewidth=0.8)
    axes.set(xlabel=t("domains, in the task's order of impact"), ylabel=t("mean impact"))
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False)
    more = t(", the first 9 of {count} tasks", count=len(tasks)) if len(tasks) > 9 else ""
    axes.set_title(t("All domains") + more, fontsize=10)
    hide_frame(axes)
