"""`mixture.png`: how the probabilities of the domains moved."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..artifacts.files import write_atomically
from ..artifacts.mixture_log import MixtureLog
from ..errors import DidsError

MAX_NAMED = 12  # domains with a colour of their own; the others are drawn as one
# Paul Tol's muted palette, safe for colour-blind readers, and repeated with hatching beyond its length
COLOURS = ("#332288", "#88CCEE", "#44AA99", "#117733", "#999933", "#DDCC77", "#CC6677", "#882255", "#AA4499")


def draw_mixture(folder: Path) -> Path:
    """Draw `mixture.png` beside `mixture.jsonl`: stacked shares over samples, the largest movers named.

    Raises DidsError where there is no log, or matplotlib is not installed.
    """
    lines = MixtureLog(folder / "mixture.jsonl").read()
    if not lines:
        raise DidsError(f"{folder / 'mixture.jsonl'}: no updates to draw")
    names = list(lines[0]["probabilities"])
    shares_UD = np.array([[line["probabilities"][name] for name in names] for line in lines])
    samples_U = np.array([line["samples_seen"] for line in lines])
    path = folder / "mixture.png"
    figure = _figure(names, shares_UD, samples_U)
    write_atomically(path, lambda stream: figure.savefig(stream, format="png", dpi=150))
    return path


def _figure(names: list[str], shares_UD: NDArray[np.float64], samples_U: NDArray[np.int64]) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise DidsError("matplotlib is not installed; `pip install matplotlib` to draw pictures") from None
    movers = _movers(shares_UD)
    rest = [i for i in range(len(names)) if i not in movers]
    bands = [shares_UD[:, i] for i in movers] + ([shares_UD[:, rest].sum(axis=1)] if rest else [])
    labels = [names[i] for i in movers] + ([f"{len(rest)} others"] if rest else [])
    if len(samples_U) == 1:  # a fixed mixture: one level
        samples_U, bands = np.array([0, 1]), [np.repeat(band, 2) for band in bands]
    figure = Figure(figsize=(9, 5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    drawn = axes.stackplot(samples_U, bands, labels=labels, colors=_colours(len(bands), bool(rest)), step="post")
    for i, band in enumerate(drawn):
        band.set_edgecolor("white")
        band.set_linewidth(0.4)
        if i >= len(COLOURS) and not (rest and i == len(drawn) - 1):
            band.set_hatch("///")
    axes.set(xlabel="training samples", ylabel="probability", ylim=(0, 1), xlim=(samples_U[0], samples_U[-1]))
    axes.set_title("Domain probabilities over training")
    handles, texts = axes.get_legend_handles_labels()
    figure.legend(handles[::-1], texts[::-1], loc="outside right center", fontsize=8, frameon=False)
    return figure


def _movers(shares_UD: NDArray[np.float64]) -> list[int]:
    """The domains whose share changed most, in their own order; all of them where they are few."""
    if shares_UD.shape[1] <= MAX_NAMED + 1:
        return list(range(shares_UD.shape[1]))
    moved_D = shares_UD.max(axis=0) - shares_UD.min(axis=0)
    return sorted(int(i) for i in np.argsort(-moved_D, kind="stable")[:MAX_NAMED])


def _colours(count: int, has_rest: bool) -> list[str]:
    colours = [COLOURS[i % len(COLOURS)] for i in range(count)]
    if has_rest:
        colours[-1] = "#DDDDDD"
    return colours
