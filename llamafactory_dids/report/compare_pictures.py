"""The two pictures of a comparison: each task's loss over the training samples, and the shares that were fed."""

import math
from typing import Any

import numpy as np

from .bands import Band, draw_bar, draw_stack
from .canvas import left_out, new_figure, short
from .colours import REST, colour, domain_colours
from .compare import Comparison
from .evaluation import curves
from .fonts import drawable_language
from .groups import Group
from .losses import finish_panel, new_panels
from .pictures import Picture, files_of
from .run import Run
from .shares import named_domains
from .words import t

MAX_PANELS = 12
MAX_GROUPS = 8
MAX_NAMED = 12

Curve = list[tuple[int, float]]


@drawable_language()
def render_comparison(comparison: Comparison) -> dict[str, Picture]:
    """The pictures by name. The picture of losses is left out if no run has any."""
    return files_of({"loss": loss_figure(comparison), "shares": shares_figure(comparison)})


def loss_figure(comparison: Comparison) -> Any:
    """A panel for each task, a colour for each group: runs are thin, a group's mean is thick; None without any loss."""
    from matplotlib.lines import Line2D

    panels = _panels(comparison)
    if not panels:
        return None
    shown = list(panels.items())[:MAX_PANELS]
    figure, places = new_panels(len(shown), columns=min(len(shown), 3))
    for axes, (title, drawn) in zip(places, shown, strict=True):
        for i, runs in enumerate(drawn):
            _draw_group(axes, [curve for curve in runs if curve], colour(3 * i))
        finish_panel(axes, short(title, 40))
        axes.set_xlim(left=0)
    handles = [Line2D([], [], color=colour(3 * i), linewidth=2.2) for i in range(len(comparison.groups))]
    labels = [
        short(group.label) + (f" (n = {len(group.members)})" if len(group.members) > 1 else "")
        for group in comparison.groups
    ]
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(t("Loss over training samples") + left_out(len(shown), len(panels)), fontsize=11)
    return figure


def _panels(comparison: Comparison) -> dict[str, list[list[Curve]]]:
    """For each title, the curves of each group's runs after the training began. The mean of the tasks comes first.

    If several groups share some curves, only those are shown. If no loss was measured during training, the evaluations
    at the end are shown as points.
    """
    found: dict[str, list[list[Curve]]] = {}
    for title, by_run in (
        ("{name}, held out", [curves(run) for run in comparison.runs]),
        ("{name}, observed", [_observed(run) for run in comparison.runs]),
    ):
        names = list(dict.fromkeys(name for own in by_run for name, curve in own.items() if curve))
        if len(names) > 1:
            mean = t("mean of {count}", count=len(names))
            by_run = [{mean: _mean([own.get(name, []) for name in names]), **own} for own in by_run]
            names.insert(0, mean)
        for name in names:
            drawn = [[by_run[i].get(name, []) for i in group.members] for group in comparison.groups]
            found[t(title, name=name)] = drawn
    moving = {
        title: drawn for title, drawn in found.items() if any(len(curve) > 1 for group in drawn for curve in group)
    }
    shared = {title: drawn for title, drawn in moving.items() if sum(any(group) for group in drawn) > 1}
    return shared or moving or found


def _mean(of: list[Curve]) -> Curve:
    """The mean of some curves, at the samples at which all were measured."""
    tables = [dict(curve) for curve in of]
    samples = [n for n in tables[0] if all(n in table for table in tables)]
    return [(n, float(np.mean([table[n] for table in tables]))) for n in samples]


def _observed(run: Run) -> dict[str, Curve]:
    record = run.record
    return {
        name: [(int(n), float(x)) for n, x in zip(record.samples_U, losses_U, strict=True) if n > 0 and np.isfinite(x)]
        for name, losses_U in zip(record.task_names, record.task_losses_UT.T, strict=True)
    }


def _draw_group(axes: Any, runs: list[Curve], shade: str) -> None:
    """The curves of a group's runs, and their mean if there are several."""
    alone = len(runs) == 1
    for curve in runs:
        _draw(axes, curve, color=shade, markersize=4, linewidth=1.8 if alone else 0.7, alpha=1 if alone else 0.45)
    if len(runs) > 1 and (mean := _mean(runs)):
        _draw(axes, mean, color=shade, markersize=6, linewidth=2.2)


def _draw(axes: Any, curve: Curve, **style: Any) -> None:
    samples, losses = zip(*curve, strict=True)
    axes.plot(samples, losses, marker="o" if len(curve) < 3 else "", **style)


def shares_figure(comparison: Comparison) -> Any:
    """A bar of the data's shares, and for each group a stack of its runs' mean shares."""
    groups = comparison.groups[:MAX_GROUPS]
    columns = min(len(groups), 4)
    rows = math.ceil(len(groups) / columns)
    figure = new_figure(3 + 3.4 * columns, 0.8 + 3.6 * rows)
    grid = figure.subplots(rows, columns + 1, squeeze=False, width_ratios=(0.35, *[2.4] * columns))
    ends = np.stack([np.mean([comparison.shares[i][-1] for i in group.members], axis=0) for group in groups])
    furthest = ends[np.abs(ends - comparison.data).sum(axis=1).argmax()]
    named = (
        named_domains(comparison.data, furthest[None], MAX_NAMED)
        if len(comparison.names) > MAX_NAMED + 1
        else range(len(comparison.names))
    )
    colours = domain_colours(comparison.names)
    bands = [(short(comparison.names[i]), [i], colours[i]) for i in sorted(named, key=lambda i: furthest[i])]
    if rest := [i for i in range(len(comparison.names)) if i not in set(named)]:
        bands.insert(0, (t("others ({count})", count=len(rest)), rest, REST))
    for row in range(rows):
        draw_bar(grid[row, 0], comparison.data, bands, t("the data"))
    for place in range(rows * columns):
        axes = grid[place // columns, 1 + place % columns]
        if place < len(groups):
            _stack(axes, comparison, groups[place], bands)
        else:
            axes.set_axis_off()
    handles, labels = grid[0, 1].get_legend_handles_labels()
    figure.legend(handles[::-1], labels[::-1], loc="outside right center", fontsize=8, frameon=False)
    figure.suptitle(t("What each run was fed") + left_out(len(groups), len(comparison.groups)), fontsize=11)
    return figure


def _stack(axes: Any, comparison: Comparison, group: Group, bands: list[Band]) -> None:
    draw_stack(axes, *_mean_shares(comparison, group), bands)
    axes.set_xlim(left=0)
    axes.locator_params(axis="x", nbins=4)
    axes.set_title(short(group.label, 34), fontsize=10)


def _mean_shares(comparison: Comparison, group: Group) -> tuple[Any, Any]:
    """The samples at which any run of the group has a line, with its end, and the mean shares from each on."""
    records = [comparison.runs[i].record for i in group.members]
    ends = [
        comparison.summaries[i].samples or int(r.samples_U[-1]) for i, r in zip(group.members, records, strict=True)
    ]
    samples_U = np.unique(np.concatenate([*(record.samples_U for record in records), [max(*ends, 1)]]))
    tables = [
        comparison.shares[i][np.searchsorted(record.samples_U, samples_U, side="right") - 1]
        for i, record in zip(group.members, records, strict=True)
    ]
    return samples_U, np.mean(tables, axis=0)
