"""`mixture.png`: how the shares of the domains moved away from their shares of the data.

Few domains are all stacked. Of many, the largest shares and the largest moves are stacked, and the others form two
bands: those fed more than their share of the data, and those fed less. A second panel has each named domain's share on
its own scale, where even a thousandth can be read. A bar at the left has the shares of the data.
"""

from typing import Any

import numpy as np

from .bands import Band, draw_bar, draw_stack
from .canvas import count_samples, hide_frame, in_percent, new_figure, short
from .colours import domain_colours
from .run import Floats, Run
from .shares import data_shares, named_domains, sizes_D
from .words import percent, t

MAX_NAMED = 12  # domains with a colour of their own
GAINED, LOST = "#BBBBBB", "#E6E6E6"
TAIL = 0.04  # share of the width, for the mixture of the last update
TITLE = "Shares of the domains over training"


def mixture_figure(run: Run) -> Any:
    record, data_D = run.record, data_shares(run)
    shares_UD, names = record.probabilities_UD, record.domain_names
    span = record.samples_U[-1] - record.samples_U[0] or 1.0  # the log of a fixed mixture may have one line
    samples_U = np.append(record.samples_U, record.samples_U[-1] + TAIL * span)
    shares_UD = np.vstack([shares_UD, shares_UD[-1]])
    many = len(names) > MAX_NAMED + 1
    figure = new_figure(13 if many else 9.5, 5)
    widths = (0.35, 3, 2) if many else (0.25, 3)
    data, left, *right = figure.subplots(1, len(widths), width_ratios=widths)
    named = list(range(len(names)))
    if many:  # sorted by the final share, so that the legend runs from the highest line to the lowest
        named = sorted(named_domains(data_D, shares_UD, MAX_NAMED), key=lambda i: float(shares_UD[-1, i]))
    colours = domain_colours(names)
    bands = _bands(names, data_D, shares_UD, named, colours)
    draw_bar(data, data_D, bands, t("the data") if sizes_D(run) is not None else t("the start"))
    draw_stack(left, samples_U, shares_UD, bands)
    left.set_title(t(TITLE), fontsize=11)
    if len(record.samples_U) == 1:
        left.set(xlabel=t("the whole run: a mixture that is not updated"), xticks=[])
    if right:
        _lines(right[0], samples_U, shares_UD, named, colours)
    handles, texts = left.get_legend_handles_labels()
    figure.legend(handles[::-1], texts[::-1], loc="outside right center", fontsize=8, frameon=False)
    return figure


def _bands(
    names: tuple[str, ...], data_D: Floats, shares_UD: Floats, named: list[int], colours: list[str]
) -> list[Band]:
    """The bands, from the lowest to the highest."""
    bands = [(short(names[i]), [i], colours[i]) for i in named]
    rest = [i for i in range(len(names)) if i not in set(named)]
    gained = [i for i in rest if shares_UD[-1, i] > data_D[i]]
    lost = sorted(set(rest) - set(gained))
    for members, text, shade in (
        (lost, "others ({count}), fed less", LOST),
        (gained, "others ({count}), fed more", GAINED),
    ):
        if members:
            bands.append((t(text, count=len(members)), members, shade))
    return bands


def _lines(axes: Any, samples_U: Floats, shares_UD: Floats, named: list[int], colours: list[str]) -> None:
    """Each named domain's share, scaled to the largest of them, in its colour in the stack."""
    for i in named:
        axes.step(samples_U, shares_UD[:, i], where="post", color=colours[i], linewidth=1.6)
    even = 1 / shares_UD.shape[1]
    label = t("even share, {share}", share=percent(even))
    axes.axhline(even, color="#555555", linewidth=0.9, linestyle=":", label=label)
    axes.legend(loc="upper left", fontsize=8, frameon=False)
    axes.set(xlim=(samples_U[0], samples_U[-1]))
    axes.set_ylim(bottom=0)
    in_percent(axes)
    count_samples(axes)
    hide_frame(axes)
    axes.set_title(t("The largest shares, and the largest moves"), fontsize=11)
