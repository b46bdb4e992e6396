"""`losses.png`: each task's measured loss, the decay fitted to it, and its prediction for the next window."""

import math
from typing import Any

import numpy as np

from ..core.trajectory import MIN_POINTS, Decay, fit_decay
from .canvas import count_samples, hide_frame, left_out, new_figure, short
from .colours import colour
from .run import Floats, Run
from .words import t

MAX_PANELS = 24


def fitted(losses_U: Floats) -> Decay | None:
    """The decay fitted to a task's losses; None if there are too few to tell a decay."""
    return fit_decay(losses_U) if np.isfinite(losses_U).sum() >= MIN_POINTS else None


def losses_figure(run: Run) -> Any:
    """The figure of a run; None if no task's loss was measured."""
    losses_UT, tasks = run.record.task_losses_UT, run.record.task_names
    if not np.isfinite(losses_UT).any():
        return None
    shown = min(len(tasks), MAX_PANELS)
    columns = shown if shown <= 3 else 2 if shown == 4 else 3 if shown <= 9 else 4
    figure, panels = new_panels(shown, columns)
    for j, axes in enumerate(panels):
        _draw(axes, run.record.samples_U, losses_UT[:, j])
        finish_panel(axes, short(tasks[j], 32))
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle(t("Loss of each observed task") + left_out(shown, len(tasks)), fontsize=11)
    return figure


def _draw(axes: Any, samples_U: Floats, losses_U: Floats) -> None:
    axes.plot(samples_U, losses_U, "o", color=colour(0), markersize=4, label=t("measured"), zorder=3)
    axes.margins(y=0.12)
    decay, now = fitted(losses_U), len(losses_U) - 1
    if decay is None:
        axes.plot(samples_U, losses_U, "-", color=colour(0), linewidth=0.8)
        return
    fine = np.linspace(0, now, 120)
    curve = [decay.at(time) for time in fine]
    axes.plot(
        np.interp(fine, np.arange(now + 1), samples_U), curve, color=colour(6), linewidth=1.5, label=t("fitted decay")
    )
    ahead = [samples_U[-1], 2 * samples_U[-1] - samples_U[-2]]
    axes.axvspan(*ahead, color="#EEEEEE", zorder=0, label=t("next window"))
    levels = [decay.at(now), decay.at(now + 1)]
    axes.plot(ahead, levels, "--D", markevery=[1], markersize=4, color=colour(6), linewidth=1.5, label=t("predicted"))


def new_panels(count: int, columns: int) -> tuple[Any, Any]:
    """(figure, axes): a panel of losses for each of `count`, row by row."""
    rows = math.ceil(count / columns)
    figure = new_figure(max(5.4, 3.7 * columns), 0.9 + 2.8 * rows)
    places = figure.subplots(rows, columns, squeeze=False).ravel()
    for unused in places[count:]:
        unused.set_axis_off()
    return figure, places[:count]


def finish_panel(axes: Any, title: str) -> None:
    """The title and the axes of a panel of losses over the training samples."""
    axes.set_title(title, fontsize=9)
    axes.set_ylabel(t("loss (nats/token)"), fontsize=8)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=5)
    count_samples(axes)
    axes.xaxis.label.set_size(8)
    hide_frame(axes)
