"""`training.png`: the training loss of each domain's own samples, window by window."""

from typing import Any

import numpy as np

from .canvas import count_samples, hide_frame, new_figure, short
from .colours import domain_colours
from .run import Floats, Run
from .shares import data_shares, named_domains
from .words import t

MAX_NAMED = 12  # most domains with a line of their own


def training_losses(run: Run) -> tuple[Floats, Floats]:
    """(samples, losses): the end of each window (W), and the mean loss of each domain's samples in it (W, D).

    NaN for a domain without a drawn sample. W is 0 if the log has no such losses.
    """
    lines = [line for line in run.lines if line.get("domain_loss")]
    names = run.record.domain_names
    losses_WD = np.array([[line["domain_loss"].get(name) for name in names] for line in lines], dtype=float)
    return np.array([line["samples_seen"] for line in lines], dtype=float), losses_WD.reshape(len(lines), len(names))


def training_figure(run: Run) -> Any:
    """The figure of a run; None if fewer than two windows have such losses."""
    samples_W, losses_WD = training_losses(run)
    if len(samples_W) < 2:
        return None
    names, record = run.record.domain_names, run.record
    named = named_domains(data_shares(run), record.probabilities_UD, MAX_NAMED)
    named.sort(key=lambda i: -float(record.probabilities_UD[-1, i]))
    colours, figure = domain_colours(names), new_figure(9.5, 4.6)
    axes = figure.subplots()
    for i in named:
        seen_W = np.isfinite(losses_WD[:, i])
        marker = "." if seen_W.sum() < 30 else ""
        axes.plot(samples_W[seen_W], losses_WD[seen_W, i], marker=marker, color=colours[i], label=short(names[i]))
    axes.set_ylabel(t("training loss"))
    axes.set_xlim(left=0)
    count_samples(axes)
    hide_frame(axes)
    more = t(" (the {shown} with the largest shares or moves)", shown=len(named)) if len(named) < len(names) else ""
    axes.set_title(t("Training loss of each domain") + more, fontsize=11)
    figure.legend(loc="outside right center", fontsize=8, frameon=False)
    return figure
