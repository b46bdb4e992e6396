"""The two pictures of a comparison: each task's loss over the training samples, and the shares that were fed."""

import math
from typing import Any

import numpy as np

from .bands import Band, draw_bar, draw_stack
from .canvas import count_samples, hide_frame, new_figure, png, short, svg
from .colours import REST, colour, domain_colours
from .compare import Comparison
from .evaluation import curves
from .fonts import drawable_language
from .groups import Group
from .pictures import Picture
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
    figures = {"loss": loss_figure(comparison), "shares": shares_figure(comparison)}
    return {name: Picture(png(figure), svg(figure)) for name, figure in figures.items() if figure is not None}


def loss_figure(comparison: Comparison) -> Any:
    """A panel for each task, a colour for each group: runs are thin, a group's mean is thick; None without any loss."""
    panels = {title: drawn for title, drawn in _panels(comparison).items() if any(drawn)}
    if not panels:
        return None
    shown = list(panels.items())[:MAX_PANELS]
    columns = min(len(shown), 3)
    rows = math.ceil(len(shown) / columns)
    figure = new_figure(max(5.6, 3.9 * columns), 0.9 + 2.9 * rows)
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for place, (title, drawn) in enumerate(shown):
        _panel(axes[place], title, comparison.groups, drawn)
    for unused in axes[len(shown) :]:
        unused.set_axis_off()
    handles = [_handle(i) for i in range(len(comparison.groups))]
    labels = [
        short(group.label) + (f" (n = {len(group.members)})" if len(group.members) > 1 else "")
        for group in comparison.groups
    ]
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=9, frameon=False)
    figure.suptitle(t("Loss over training samples"), fontsize=11)
    return figure


def _handle(i: int) -> Any:
    from matplotlib.lines import Line2D

    return Line2D([], [], color=colour(3 * i), linewidth=2.2)


def _panels(comparison: Comparison) -> dict[str, list[list[Curve]]]:
    """For each title, the curves of each group's runs after the training began. The mean of the tasks comes first.

    If several groups share some curves, only those are shown. If no loss was measured during training, the evaluations
    at the end are shown as points.
    """
    found: dict[str, list[list[Curve]]] = {}
    for of_runs, title in (
        (map(curves, comparison.runs), "{name}, held out"),
        (map(_observed, comparison.runs), "{name}, observed"),
    ):
        by_run = list(of_runs)
        names = list(dict.fromkeys(name for curves_of in by_run for name in curves_of))
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


def _mean(of_tasks: list[Curve]) -> Curve:
    """The mean of the tasks, at the samples at which all were measured."""
    tables = [dict(curve) for curve in of_tasks]
    samples = [n for n in tables[0] if all(n in table for table in tables)]
    return [(n, float(np.mean([table[n] for table in tables]))) for n in samples]


def _observed(run: Run) -> dict[str, Curve]:
    record = run.record
    return {
        name: [(int(n), float(x)) for n, x in zip(record.samples_U, losses_U, strict=True) if n > 0 and np.isfinite(x)]
        for name, losses_U in zip(record.task_names, record.task_losses_UT.T, strict=True)
    }


def _panel(axes: Any, title: str, groups: list[Group], drawn: list[list[Curve]]) -> None:
    for i, members in enumerate(drawn[: len(groups)]):
        members = [curve for curve in members if curve]
        if not members:
            continue
        shade, alone = colour(3 * i), len(members) == 1
        for curve in members:
            samples, losses = zip(*curve, strict=True)
            marker = "o" if len(curve) < 3 else ""
            axes.plot(
                samples, losses, color=shade, marker=marker, markersize=4,
                linewidth=1.8 if alone else 0.7, alpha=1 if alone else 0.45,
            )  # fmt: skip
        if not alone and len({tuple(n for n, _ in curve) for curve in members}) == 1:
            samples = [n for n, _ in members[0]]
            losses = np.mean([[x for _, x in curve] for curve in members], axis=0)
            axes.plot(samples, losses, color=shade, linewidth=2.2, marker="o" if len(samples) < 3 else "", markersize=6)
    axes.set_title(short(title, 40), fontsize=9)
    axes.set_ylabel(t("loss (nats/token)"), fontsize=8)
    axes.set_xlim(left=0)
    axes.tick_params(labelsize=8)
    axes.locator_params(axis="x", nbins=5)
    count_samples(axes)
    axes.xaxis.label.set_size(8)
    hide_frame(axes)


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
        if comparison.total > MAX_NAMED + 1
        else range(comparison.total)
    )
    colours = domain_colours(comparison.names)
    bands = [(short(comparison.names[i]), [i], colours[i]) for i in sorted(named, key=lambda i: furthest[i])]
    if rest := [i for i in range(comparison.total) if i not in set(named)]:
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
    figure.suptitle(t("What each run was fed"), fontsize=11)
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
