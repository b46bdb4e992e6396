"""Shares as bands on top of each other: a bar for the data's shares, and a stack for a run's over the training."""

from typing import Any

from .canvas import count_samples, in_percent
from .run import Floats

Band = tuple[str, list[int], str]  # label, domains, colour
_EDGE = {"edgecolor": "white", "linewidth": 0.4}


def draw_bar(axes: Any, shares_D: Floats, bands: list[Band], what: str) -> None:
    """One bar with the first band at the bottom. `what` is the label below it."""
    bottom = 0.0
    for _, members, shade in bands:
        height = float(shares_D[members].sum())
        axes.bar([0], [height], bottom=bottom, color=shade, width=1, **_EDGE)
        bottom += height
    axes.set(xlim=(-0.5, 0.5), ylim=(0, 1), xticks=[0], xticklabels=[what])
    axes.tick_params(axis="x", length=0)
    in_percent(axes)
    axes.spines[["top", "right", "bottom"]].set_visible(False)


def draw_stack(axes: Any, samples_U: Floats, shares_UD: Floats, bands: list[Band]) -> None:
    """The bands over the training samples. Each line's shares hold until the next line."""
    drawn = axes.stackplot(
        samples_U,
        [shares_UD[:, members].sum(axis=1) for _, members, _ in bands],
        labels=[label for label, _, _ in bands],
        colors=[shade for _, _, shade in bands],
        step="post",
    )
    for band in drawn:
        band.set(**_EDGE)
    axes.set(ylim=(0, 1), xlim=(samples_U[0], samples_U[-1]), yticks=[])
    count_samples(axes)
