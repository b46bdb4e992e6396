"""`losses.png`: each task's measured loss, the decay fitted to it, and its prediction for the next window."""

import math
from typing import Any, NamedTuple

import numpy as np

from ..core.trajectory import MIN_POINTS, Decay, fit_decay
from .canvas import count_samples, hide_frame, new_figure, short
from .colours import colour
from .run import Floats, Run
from .words import t

MAX_PANELS = 24


class Outlook(NamedTuple):
    """A task's fitted decay, and the predicted loss after one more update."""

    decay: Decay
    next_loss: float


def outlook(losses_U: Floats) -> Outlook | None:
    """The fit to a task's losses; None if there are too few to tell a decay."""
    if np.isfinite(losses_U).sum() < MIN_POINTS:
        return None
    decay = fit_decay(losses_U)
    return Outlook(decay, decay.at(len(losses_U)))


def losses_figure(run: Run) -> Any:
    """The figure of a run; None if no task's loss was measured."""
    losses_UT, tasks = run.record.task_losses_UT, run.record.task_names
    if not np.isfinite(losses_UT).any():
        return None
    shown = min(len(tasks), MAX_PANELS)
    columns = shown if shown <= 3 else 2 if shown == 4 else 3 if shown <= 9 else 4
    rows = math.ceil(shown / columns)
    figure = new_figure(max(5.2, 3.6 * columns), 0.9 + 2.7 * rows)
    panels = figure.subplots(rows, columns, squeeze=False).ravel()
    for j, axes in enumerate(panels):
        if j < shown:
            _panel(axes, short(tasks[j], 32), run.record.samples_U, losses_UT[:, j])
        else:
            axes.set_axis_off()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    more = t(" (the first {shown} of {count})", shown=shown, count=len(tasks)) if shown < len(tasks) else ""
    figure.suptitle(t("Loss of each observed task") + more, fontsize=11)
    return figure


def _panel(axes: Any, name: str, samples_U: Floats, losses_U: Floats) -> None:
    axes.plot(samples_U, losses_U, "o", color=colour(0), markersize=4, label=t("measured"), zorder=3)
    if found := outlook(losses_U):
        at_U = np.arange(len(losses_U))
        fine = np.linspace(0, len(losses_U) - 1, 120)
        curve = [found.decay.at(t) for t in fine]
        axes.plot(np.interp(fine, at_U, samples_U), curve, color=colour(6), linewidth=1.5, label=t("fitted decay"))
        window = samples_U[-1] - samples_U[-2]
        ahead = [samples_U[-1], samples_U[-1] + window]
        axes.axvspan(*ahead, color="#EEEEEE", zorder=0, label=t("next window"))
        levels = [found.decay.at(len(losses_U) - 1), found.next_loss]
        axes.plot(
            ahead, levels, "--D", markevery=[1], markersize=4, color=colour(6), linewidth=1.5, label=t("predicted")
        )
    else:
        axes.plot(samples_U, losses_U, "-", color=colour(0), linewidth=0.8)
    axes.set_title(name, fontsize=9)
    axes.set_ylabel(t("loss (nats/token)"), fontsize=8)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=5)
    axes.margins(y=0.12)
    count_samples(axes)
    axes.xaxis.label.set_size(8)
    hide_frame(axes)
