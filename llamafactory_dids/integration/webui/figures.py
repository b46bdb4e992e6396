"""The live pictures, for the narrow column under the host's loss curve: probabilities and task losses so far."""

from typing import Any

import numpy as np

from ...artifacts.mixture_log import MixtureRecord
from ...report.canvas import REST, colour, count_samples, hide_frame, new_figure, short
from ...report.fonts import use_fonts_for_letters
from ...report.run import movers

MAX_NAMED = 8  # domains, or tasks, with a line of their own: more could not be told apart at this size
_WIDTH, _HEIGHT = 5.0, 4.2  # inches


def probabilities_figure(record: MixtureRecord) -> Any:
    """The largest movers' probabilities in percent, and the band that all others lie in."""
    shares_UD = 100 * record.probabilities_UD
    named = movers(shares_UD, MAX_NAMED)
    rest = sorted(set(range(shares_UD.shape[1])) - set(named))
    figure, axes = _new()
    if rest:
        low_U, high_U = shares_UD[:, rest].min(axis=1), shares_UD[:, rest].max(axis=1)
        axes.fill_between(record.samples_U, low_U, high_U, color=REST, step="post", label=f"{len(rest)} others")
    marker = "." if len(record.samples_U) < 30 else ""
    for place, i in enumerate(named):
        drawn = {"drawstyle": "steps-post", "marker": marker, "color": colour(place)}
        axes.plot(record.samples_U, shares_UD[:, i], label=record.domain_names[i], **drawn)
    axes.set_ylim(bottom=0)
    return _finished(figure, axes, "probability in %")


def losses_figure(record: MixtureRecord) -> Any:
    """Each task's loss at the updates; None where no loss was measured."""
    if not np.isfinite(record.task_losses_UT).any():
        return None
    figure, axes = _new()
    for j, name in enumerate(record.task_names):
        drawn = {"color": colour(j), "label": name, "zorder": 3} if j < MAX_NAMED else {"color": REST}
        axes.plot(record.samples_U, record.task_losses_UT[:, j], ".-", **drawn)
    return _finished(figure, axes, "loss (nats/token)")


def _new() -> tuple[Any, Any]:
    figure = new_figure(_WIDTH, _HEIGHT)
    figure.get_layout_engine().set(rect=(0, 0, 1, 0.9))  # the page writes the picture's name over its top
    return figure, figure.subplots()


def _finished(figure: Any, axes: Any, what: str) -> Any:
    axes.set_ylabel(what)
    axes.set_xlim(left=0)
    count_samples(axes)
    hide_frame(axes)
    handles, labels = axes.get_legend_handles_labels()
    names = [short(label, 20) for label in labels]
    figure.legend(handles, names, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    use_fonts_for_letters(figure)
    return figure
