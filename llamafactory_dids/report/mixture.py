"""`mixture.png`: how the probabilities of the domains moved.

Few domains: all of them, stacked. Many: the largest movers, and the others as two bands, those that gained and those
that lost; beside them each mover's probability, where a thousand domains of a thousandth each can still be read.
"""

from typing import Any

import numpy as np

from .canvas import COLOURS, colour, count_samples, hide_frame, new_figure, short
from .run import Floats, Run, movers

MAX_NAMED = 12  # domains with a colour of their own
GAINED, LOST = "#BBBBBB", "#E6E6E6"
TAIL = 0.04  # of the width, for the mixture that the last update chose


def mixture_figure(run: Run) -> Any:
    """The figure of a run."""
    record = run.record
    shares_UD, names = record.probabilities_UD, record.domain_names
    span = record.samples_U[-1] - record.samples_U[0] or 1.0  # a fixed mixture has one line
    samples_U = np.append(record.samples_U, record.samples_U[-1] + TAIL * span)
    shares_UD = np.vstack([shares_UD, shares_UD[-1]])
    many = len(names) > MAX_NAMED + 1
    figure = new_figure(12.5 if many else 9, 5)
    left, right = figure.subplots(1, 2, width_ratios=(3, 2)) if many else (figure.subplots(), None)
    named = list(range(len(names)))
    if many:  # from the smallest share at the end, so that the legend runs from the highest line to the lowest
        named = sorted(movers(shares_UD, MAX_NAMED), key=lambda i: float(shares_UD[-1, i]))
    _stack(left, names, samples_U, shares_UD, named)
    if len(record.samples_U) == 1:
        left.set(xlabel="the whole run: a mixture that is not updated", xticks=[])
    if right is not None:
        _factors(right, samples_U, shares_UD, named)
    handles, texts = left.get_legend_handles_labels()
    figure.legend(handles[::-1], texts[::-1], loc="outside right center", fontsize=8, frameon=False)
    return figure


def _stack(axes: Any, names: tuple[str, ...], samples_U: Floats, shares_UD: Floats, named: list[int]) -> None:
    bands = [shares_UD[:, i] for i in named]
    labels = [short(names[i]) for i in named]
    colours = [colour(i) for i in range(len(named))]
    rest = [i for i in range(len(names)) if i not in set(named)]
    gained = [i for i in rest if shares_UD[-1, i] > shares_UD[0, i]]
    lost = sorted(set(rest) - set(gained))
    for members, what, shade in ((lost, "that did not", LOST), (gained, "that gained", GAINED)):
        if members:
            bands.append(shares_UD[:, members].sum(axis=1))
            labels.append(f"{len(members)} others {what}")
            colours.append(shade)
    drawn = axes.stackplot(samples_U, bands, labels=labels, colors=colours, step="post")
    for i, band in enumerate(drawn):
        band.set_edgecolor("white")
        band.set_linewidth(0.4)
        if len(COLOURS) <= i < len(named):
            band.set_hatch("///")
    axes.set(ylabel="probability", ylim=(0, 1), xlim=(samples_U[0], samples_U[-1]))
    count_samples(axes)
    axes.set_title("Domain probabilities over training", fontsize=11)


def _factors(axes: Any, samples_U: Floats, shares_UD: Floats, named: list[int]) -> None:
    """Each mover's probability, on a scale of its own size, in the colour that it has in the stack."""
    for place, i in enumerate(named):
        dashes = "--" if place >= len(COLOURS) else "-"
        axes.step(samples_U, 100 * shares_UD[:, i], where="post", color=colour(place), linestyle=dashes, linewidth=1.6)
    even = 100 / shares_UD.shape[1]
    axes.axhline(even, color="#555555", linewidth=0.9, linestyle=":", label=f"even share, {even:.2g}%")
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    axes.set(ylabel="probability in %", xlim=(samples_U[0], samples_U[-1]))
    axes.set_ylim(bottom=0)
    count_samples(axes)
    hide_frame(axes)
    axes.set_title(f"The {len(named)} largest movers", fontsize=11)
