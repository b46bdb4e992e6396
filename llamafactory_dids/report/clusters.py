"""`clusters.png`: the sources of each domain's samples, and the positions of samples in the features' space."""

from typing import Any

import numpy as np
import pyarrow as pa

from ..artifacts.domain_map import DomainMap, load_map
from .canvas import hide_frame, new_figure, short
from .colours import COLOURS, REST, colour, source_colours
from .run import Floats, Run
from .shares import data_shares, drawn_shares, source_counts
from .words import percent, t

MAX_BARS = 40  # most domains with a bar each
MAX_SOURCES = 24  # rows of the figure for more domains
FURTHEST = 3.0  # doublings or halvings that colours tell apart


def clusters_figure(run: Run) -> Any:
    """The figure of a run; None without domains.json."""
    found = source_counts(run)
    if found is None or not found[1].any():
        return None
    names, counts_DS = found
    order = np.argsort(-counts_DS.sum(axis=0), kind="stable")
    sources, counts_DS = [names[i] for i in order], counts_DS[:, order]
    if len(counts_DS) > MAX_BARS:
        return _cells_figure(run, counts_DS, sources)
    domain_map, hues = _drawn_map(run), _hues(run, sources)
    height = max(4.5, 1.6 + 0.2 * len(counts_DS))
    if domain_map is None:
        figure = new_figure(7.5, height)
        left = figure.subplots()
    else:
        figure = new_figure(13.5, height)
        left, right = figure.subplots(1, 2, width_ratios=(7.5, 6))
        _points(right, domain_map, sources, hues)
    _bars(left, run.record.domain_names, counts_DS, sources, hues)
    handles, labels = left.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=5, fontsize=8, frameon=False)
    return figure


def _hues(run: Run, sources: list[str]) -> list[str]:
    """The colour of each source: the hue of its domains, if they are named after it."""
    known = source_colours(run.record.domain_names)
    return [known.get(source) or colour(i) for i, source in enumerate(sources)]


def _series(sources: list[str], hues: list[str]) -> list[tuple[str, str]]:
    """(label, colour) of the largest sources, with a colour each. The last stands for all others."""
    named = [(short(source), hue) for source, hue in zip(sources[: len(COLOURS)], hues, strict=False)]
    rest = len(sources) - len(named)
    return [*named, (t("{count} other sources", count=rest), REST)] if rest else named


def _bars(axes: Any, names: tuple[str, ...], counts_DS: Floats, sources: list[str], hues: list[str]) -> None:
    left_D = np.zeros(len(names))
    for i, (label, shade) in enumerate(_series(sources, hues)):
        width_D = counts_DS[:, i:].sum(axis=1) if i == len(COLOURS) else counts_DS[:, i]
        axes.barh(range(len(names)), width_D, left=left_D, color=shade, label=label, height=0.8)
        left_D = left_D + width_D
    axes.set_yticks(range(len(names)), [short(name, 26) for name in names], fontsize=8)
    axes.invert_yaxis()
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(right=1.03 * float(left_D.max()))  # the longest bar ends inside the frame
    axes.set_xlabel(t("training samples"))
    axes.set_title(t("Domains by source"), fontsize=11)
    hide_frame(axes)


def _cells_figure(run: Run, counts_DS: Floats, sources: list[str]) -> Any:
    """Sources as rows, domains as cells. A cell's width is the domain's size, its colour the change of its share."""
    shown = sources[:MAX_SOURCES]
    figure = new_figure(11, 2.4 + 0.34 * len(shown))
    axes = figure.subplots()
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    data_D, drawn_D = data_shares(run), drawn_shares(run)
    with np.errstate(divide="ignore"):
        doublings_D = np.log2(drawn_D / np.where(data_D > 0, data_D, np.nan))
    scale = ScalarMappable(Normalize(-FURTHEST, FURTHEST), cmap="RdBu")
    home_D, sizes_D = counts_DS.argmax(axis=1), counts_DS.sum(axis=1)
    for row in range(len(shown)):
        mine = [i for i in np.argsort(-np.nan_to_num(doublings_D), kind="stable") if home_D[i] == row]
        starts = np.concatenate([[0.0], np.cumsum(sizes_D[mine])[:-1]]) if mine else np.zeros(0)
        shades = scale.to_rgba(np.clip(np.nan_to_num(doublings_D[mine]), -FURTHEST, FURTHEST))
        axes.barh(
            [row] * len(mine), sizes_D[mine], left=starts, color=shades, edgecolor="white", linewidth=0.6, height=0.8
        )
        told = f"  {percent(float(data_D[mine].sum()))} → {percent(float(drawn_D[mine].sum()))}"
        axes.text(float(sizes_D[mine].sum()), row, told, va="center", fontsize=8)
    labels = [f"{short(source, 24)} ({int((home_D == i).sum())})" for i, source in enumerate(shown)]
    axes.set_yticks(range(len(shown)), labels, fontsize=8)
    axes.set_ylim(len(shown) - 0.4, -0.6)
    axes.set_xlim(0, 1.25 * max(float(sizes_D[home_D == i].sum()) for i in range(len(shown))))
    axes.set_xlabel(t("training samples; at the end of a row the source's share of the data → of what was drawn"))
    title = t("Sources, and in each its domains: how much more or less each was fed than its share of the data")
    if len(shown) < len(sources):
        title += t(" (the {shown} largest of {count})", shown=len(shown), count=len(sources))
    axes.set_title(title, fontsize=10)
    hide_frame(axes)
    bar = figure.colorbar(scale, ax=axes, shrink=0.8, pad=0.02, ticks=[-3, -2, -1, 0, 1, 2, 3])
    bar.ax.set_yticklabels(["÷8", "÷4", "÷2", "×1", "×2", "×4", "×8"], fontsize=8)
    bar.set_label(t("share of what was drawn, of the share of the data"), fontsize=8)
    return figure


def _drawn_map(run: Run) -> DomainMap | None:
    """The run's map, if it has positions of samples; else None."""
    if not (run.folder / "domains.parquet").exists():
        return None
    domain_map = load_map(run.folder)
    return domain_map if domain_map.view is not None else None


def _points(axes: Any, domain_map: DomainMap, sources: list[str], hues: list[str]) -> None:
    points_N2, explained_2 = domain_map.view
    drawn_M = np.flatnonzero(np.isfinite(points_N2).all(axis=1))
    place = {source: min(i, len(COLOURS)) for i, source in enumerate(sources)}
    sources_M = domain_map.sources_N.take(pa.array(drawn_M)).to_pylist()
    places_M = np.array([place.get(source, len(COLOURS)) for source in sources_M])
    for i, (_, shade) in enumerate(_series(sources, hues)):
        points = points_N2[drawn_M[places_M == i]]
        axes.scatter(points[:, 0], points[:, 1], s=5, color=shade, alpha=0.7, linewidths=0)
    first, second = explained_2
    axes.set_xlabel(t("first principal axis ({share} of the variance)", share=f"{first:.0%}"))
    axes.set_ylabel(t("second principal axis ({share})", share=f"{second:.0%}"))
    axes.tick_params(labelsize=8)
    hide_frame(axes)
    drawn, total = len(drawn_M), len(points_N2)
    counted = t(" ({drawn} of {total})", drawn=f"{drawn:,}", total=f"{total:,}") if drawn < total else f" ({total:,})"
    axes.set_title(t("Samples by their features") + counted, fontsize=11)
