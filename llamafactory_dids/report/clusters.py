"""`clusters.png`: which source each domain's samples come from, and where the samples lie in the features' space."""

from typing import Any

import numpy as np

from .canvas import COLOURS, REST, colour, hide_frame, new_figure, short, shorten_all
from .features import Projected, project_features
from .run import Floats, Run

MAX_BARS = 48  # domains that have a bar each
MAX_SOURCES = 24  # rows of the table for more domains


def clusters_figure(run: Run) -> Any:
    """The figure of a run; None without domains.json."""
    domains = run.domains
    if not domains:
        return None
    totals: dict[str, int] = {}
    for domain in domains:
        for source, count in domain["sources"].items():
            totals[source] = totals.get(source, 0) + count
    sources = sorted(totals, key=lambda source: -totals[source])
    counts_DS = np.array([[domain["sources"].get(source, 0) for source in sources] for domain in domains], dtype=float)
    projected = project_features(run)
    bars = len(domains) <= MAX_BARS
    height = max(4.5, 1.6 + (0.2 * len(domains) if bars else 0.24 * min(len(sources), MAX_SOURCES)))
    figure = new_figure(7.5 + (6 if projected is not None else 0), height)
    if projected is None:
        left = figure.subplots()
    else:
        left, right = figure.subplots(1, 2, width_ratios=(7.5, 6))
        _points(right, projected, sources)
    if bars:
        _bars(left, run.record.domain_names, counts_DS, sources)
    else:
        _table(figure, left, counts_DS, sources)
    handles, labels = left.get_legend_handles_labels()
    if projected is not None:
        handles, labels = right.get_legend_handles_labels()
    if handles:
        figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False, markerscale=4)
    return figure


def _series(sources: list[str]) -> list[tuple[str, str]]:
    """(label, colour) of the largest sources, one colour each; the last stands for all others."""
    if len(sources) <= len(COLOURS):
        return [(short(source), colour(i)) for i, source in enumerate(sources)]
    named = [(short(source), colour(i)) for i, source in enumerate(sources[: len(COLOURS)])]
    return [*named, (f"{len(sources) - len(COLOURS)} other sources", REST)]


def _bars(axes: Any, names: tuple[str, ...], counts_DS: Floats, sources: list[str]) -> None:
    series = _series(sources)
    left_D = np.zeros(len(names))
    for i, (label, shade) in enumerate(series):
        grouped = label != short(sources[i])
        width_D = counts_DS[:, i:].sum(axis=1) if grouped else counts_DS[:, i]
        axes.barh(range(len(names)), width_D, left=left_D, color=shade, label=label, height=0.8)
        left_D = left_D + width_D
    axes.set_yticks(range(len(names)), shorten_all(names, 26), fontsize=8)
    axes.invert_yaxis()
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(right=1.03 * float(left_D.max()))  # the longest bar ends before the frame does
    axes.set_xlabel("training samples")
    axes.set_title("Domains by source", fontsize=11)
    hide_frame(axes)


def _table(figure: Any, axes: Any, counts_DS: Floats, sources: list[str]) -> None:
    shown = sources[:MAX_SOURCES]
    # a source's domains beside each other, the largest first
    home_D = counts_DS.argmax(axis=1)
    order = np.lexsort((-counts_DS.sum(axis=1), home_D))
    counts_SD = counts_DS[order, : len(shown)].T
    from matplotlib.colors import LogNorm

    least = float(counts_SD[counts_SD > 0].min())
    norm = LogNorm(least, max(least + 1, float(counts_SD.max())))
    seen_SD = np.ma.masked_less(counts_SD, 1)  # nothing is drawn where there is nothing
    image = axes.imshow(seen_SD, cmap="cividis_r", norm=norm, aspect="auto", interpolation="nearest")
    domains_S = [int((home_D == i).sum()) for i in range(len(shown))]
    labels = [f"{short(source, 24)} ({count})" for source, count in zip(shown, domains_S, strict=True)]
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.set_xlabel(f"the {len(order)} domains, by source and size")
    more = f", the {len(shown)} largest of {len(sources)}" if len(shown) < len(sources) else ""
    axes.set_title(f"Sources (and how many domains each has{more})", fontsize=11)
    bar = figure.colorbar(image, ax=axes, shrink=0.8, pad=0.02)
    bar.set_label("training samples", fontsize=8)
    bar.ax.tick_params(labelsize=8)


def _points(axes: Any, projected: Projected, sources: list[str]) -> None:
    place = {source: min(i, len(COLOURS)) for i, source in enumerate(sources)}
    places_N = np.array([place.get(source, len(COLOURS)) for source in projected.sources_N])
    for i, (label, shade) in enumerate(_series(sources)):
        mine = places_N == i
        points = projected.points_N2[mine]
        axes.scatter(points[:, 0], points[:, 1], s=5, color=shade, alpha=0.7, linewidths=0, label=label)
    first, second = projected.explained_2
    axes.set_xlabel(f"first principal axis ({first:.0%} of the variance)")
    axes.set_ylabel(f"second principal axis ({second:.0%})")
    axes.tick_params(labelsize=8)
    hide_frame(axes)
    drawn, total = len(projected.points_N2), projected.num_samples
    axes.set_title(
        "Samples by their features" + (f" ({drawn:,} of {total:,})" if drawn < total else f" ({total:,})"), fontsize=11
    )
