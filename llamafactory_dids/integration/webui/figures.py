"""The live pictures in the narrow column under the host's loss curve: shares and task losses so far.

They are SVG inside the page, so text and axes have the page's fonts and its colour, light or dark.
"""

import io
import re
import warnings
from typing import Any

import numpy as np

from ...artifacts.mixture_log import MixtureRecord
from ...report.canvas import count_samples, hide_frame, new_figure
from ...report.colours import colour, domain_colours
from ...report.shares import named_domains
from ...text import without_middle
from .texts import say

MAX_NAMED = 8  # domains, or tasks, with a line of their own; more could not be told apart at this size
_WIDTH, _HEIGHT = 5.0, 4.2  # inches
_INK = "#010203"  # placeholder for the page's own colour of text
_GREY = "#888888"
_STYLE = {
    "svg.fonttype": "none",
    "text.parse_math": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}


def probabilities_picture(record: MixtureRecord, lang: str) -> str:
    """SVG of the shares, in percent, of the largest domains and those that moved most, and of the others' sum."""
    return _svg(lambda: probabilities_figure(record, lang), "shares")


def losses_picture(record: MixtureRecord, lang: str) -> str:
    """SVG of each task's loss at the updates; empty if no loss was measured."""
    return _svg(lambda: losses_figure(record, lang), "losses") if np.isfinite(record.task_losses_UT).any() else ""


def probabilities_figure(record: MixtureRecord, lang: str) -> Any:
    """A domain's colour and dashes depend on its index among all domains, so they are the same at every update."""
    shares_UD = 100 * record.probabilities_UD
    named = named_domains(shares_UD[0], shares_UD, MAX_NAMED)
    figure = new_figure(_WIDTH, _HEIGHT)
    axes = figure.subplots()
    drawn = {"drawstyle": "steps-post", "marker": "." if len(record.samples_U) < 30 else ""}
    colours = domain_colours(record.domain_names)
    for i in named:
        axes.plot(record.samples_U, shares_UD[:, i], label=record.domain_names[i], color=colours[i], **drawn)
    if num_others := shares_UD.shape[1] - len(named):
        rest_U = 100 - shares_UD[:, named].sum(axis=1)
        label = say("others", lang).format(name=num_others)
        axes.plot(record.samples_U, rest_U, label=label, color=_GREY, linewidth=1, drawstyle="steps-post")
    axes.set_ylim(bottom=0)
    return _finished(figure, axes, say("share", lang), lang)


def losses_figure(record: MixtureRecord, lang: str) -> Any:
    """A task's colour depends on its index among all tasks."""
    figure = new_figure(_WIDTH, _HEIGHT)
    axes = figure.subplots()
    for j, name in enumerate(record.task_names):
        drawn = {"color": colour(j), "label": name, "zorder": 3} if j < MAX_NAMED else {"color": _GREY, "alpha": 0.5}
        axes.plot(record.samples_U, record.task_losses_UT[:, j], ".-", **drawn)
    return _finished(figure, axes, say("loss", lang), lang)


def _finished(figure: Any, axes: Any, what: str, lang: str) -> Any:
    axes.set_ylabel(what)
    axes.set_xlim(left=0)
    count_samples(axes)
    axes.set_xlabel(say("samples_seen", lang))
    hide_frame(axes)
    handles, labels = axes.get_legend_handles_labels()
    names = [without_middle(label, 20) for label in labels]
    figure.legend(handles, names, loc="outside lower center", ncols=2, fontsize=10, frameon=False)
    return figure


def _svg(draw: Any, name: str) -> str:
    """The figure as an SVG element. matplotlib may lack fonts, since the browser has them."""
    from matplotlib import rc_context

    stream = io.StringIO()
    with rc_context({**_STYLE, "svg.hashsalt": name}), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        draw().savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = stream.getvalue()
    text = re.sub(r"<metadata>.*?</metadata>", "", text[text.index("<svg") :], flags=re.DOTALL)
    return text.replace(_INK, "currentColor")
