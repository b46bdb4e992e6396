"""The live pictures, for the narrow column under the host's loss curve: probabilities and task losses so far."""

from typing import Any

import numpy as np

from ...artifacts.mixture_log import MixtureRecord
from ...report.canvas import COLOURS

MAX_NAMED = 8  # domains, or tasks, with a line of their own: more could not be told apart at this size
_WIDTH, _HEIGHT = 5.0, 4.2  # inches


def probabilities_figure(record: MixtureRecord) -> Any:
    """The largest movers' probabilities in percent, and the band that all others lie in."""
    shares_UD = 100 * record.probabilities_UD
    moved_D = shares_UD.max(axis=0) - shares_UD.min(axis=0)
    named = np.argsort(-moved_D, kind="stable")[:MAX_NAMED].tolist()
    rest = sorted(set(range(shares_UD.shape[1])) - set(named))
    figure, axes = _new()
    if rest:
        low_U, high_U = shares_UD[:, rest].min(axis=1), shares_UD[:, rest].max(axis=1)
        label = f"{len(rest)} others"
        axes.fill_between(record.samples_U, low_U, high_U, color="#DDDDDD", step="post", label=label)
    for place, i in enumerate(named):
        axes.plot(
            record.samples_U,
            shares_UD[:, i],
            drawstyle="steps-post",
            marker="." if len(record.samples_U) < 30 else "",
            color=COLOURS[place],
            label=record.domain_names[i],
        )
    axes.set_ylim(bottom=0)
    return _finished(figure, axes, "probability in %")


def losses_figure(record: MixtureRecord) -> Any:
    """Each task's loss at the updates; None where no loss was measured."""
    if not np.isfinite(record.task_losses_UT).any():
        return None
    figure, axes = _new()
    for j, name in enumerate(record.task_names):
        named = j < MAX_NAMED
        colour = COLOURS[j] if named else "#BBBBBB"
        label = name if named else "others" if j == MAX_NAMED else None
        axes.plot(
            record.samples_U, record.task_losses_UT[:, j], ".-", color=colour, label=label, zorder=3 if named else 1
        )
    return _finished(figure, axes, "loss (nats/token)")


def _new() -> tuple[Any, Any]:
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(_WIDTH, _HEIGHT), layout="constrained")
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.9))  # the page writes the picture's name over its top
    FigureCanvasAgg(figure)
    return figure, figure.subplots()


def _finished(figure: Any, axes: Any, what: str) -> Any:
    axes.set(xlabel="training samples", ylabel=what)
    axes.spines[["top", "right"]].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    names = [_short(label) for label in labels]
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    return figure


def _short(name: str, limit: int = 20) -> str:
    name = name if len(name) <= limit else "…" + name[-limit + 1 :]
    return name.replace("$", r"\$")
