"""The figures as pictures: the paper's points on the left, ours with their standard errors on the right."""

import statistics
from collections.abc import Sequence
from typing import Any

from llamafactory_dids.report import canvas, colours

from .definition import AVERAGE, Row
from .results import Table, error_of

MARKERS = "os^Dv<>Ph"

Point = tuple[float, float, float]  # x, y, error


def draw(table: Table) -> bytes:
    """A figure as PNG."""
    figure = canvas.new_figure(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    sections = list(dict.fromkeys(row.section for row in table.definition.rows))
    _panel(left, table, sections, [_printed(row) for row in table.definition.rows], "the paper", "average score")
    label = "mean loss" if table.is_mini else "average score"
    _panel(
        right, table, sections, [_ours(table, row) for row in table.definition.rows], f"{table.preset} preset", label
    )
    handles, labels = [], []
    for axes in (left, right):
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            if name not in labels:
                handles, labels = [*handles, handle], [*labels, name]
    if labels:
        figure.legend(handles, labels, loc="outside lower center", ncols=4, frameon=False)
    return canvas.png(figure)


def _printed(row: Row) -> Sequence[float]:
    return [row.paper[0]] if row.paper and row.paper[0] is not None else []


def _ours(table: Table, row: Row) -> Sequence[float]:
    return list(table.values(row, AVERAGE).values())


def _panel(
    axes: Any, table: Table, sections: Sequence[str], values: Sequence[Sequence[float]], title: str, y: str
) -> None:
    """A line a section; points without an x are level lines, since they do not depend on it."""
    for index, section in enumerate(sections):
        rows = zip(table.definition.rows, values, strict=True)
        of_section = [(row, found) for row, found in rows if row.section == section and found]
        points = [(row.x, statistics.fmean(found), error_of(found)) for row, found in of_section if row.x is not None]
        if points:
            xs, ys, errors = zip(*sorted(points), strict=True)
            style = {"marker": MARKERS[index], "color": colours.colour(index), "capsize": 2, "label": section}
            axes.errorbar(xs, ys, yerr=errors, linewidth=1.5, **style)
        for place, (row, found) in enumerate((row, found) for row, found in of_section if row.x is None):
            name = section if row.label == "any" else row.label
            dash = ("--", ":", "-.")[place % 3]
            axes.axhline(statistics.fmean(found), color=colours.colour(index), linestyle=dash, linewidth=1, label=name)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(table.definition.axis)
    axes.set_ylabel(y)
    canvas.hide_frame(axes)
