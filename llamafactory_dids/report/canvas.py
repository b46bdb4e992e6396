"""The common parts of all pictures: a figure without a window, its files, short names, and its axes."""

import io
from typing import Any

from ..text import without_middle
from .fonts import use_fonts_for_letters, with_boxes
from .words import t

MAX_NAME = 28  # characters
DPI = 130


def new_figure(width: float, height: float) -> Any:
    """A matplotlib figure, its size in inches."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def png(figure: Any) -> bytes:
    return _saved(figure, "png", dpi=DPI)


def svg(figure: Any) -> bytes:
    """The figure as an SVG file. Letters are shapes, so it looks the same without the font."""
    return _saved(figure, "svg", metadata={"Date": None})  # the same figure makes the same file


def _saved(figure: Any, kind: str, **how: Any) -> bytes:
    use_fonts_for_letters(figure)
    stream = io.BytesIO()
    figure.savefig(stream, format=kind, **how)
    return stream.getvalue()


def short(name: str, limit: int = MAX_NAME) -> str:
    """A name that fits beside an axis and can be drawn: the middle is cut, and boxes replace letters that no font has.

    `$` is escaped, since it would begin a formula.
    """
    return with_boxes(without_middle(name, limit)).replace("$", r"\$")


def left_out(shown: int, count: int) -> str:
    """The end of a title: how many of `count` are shown, or nothing if all are."""
    return t(" (the first {shown} of {count})", shown=shown, count=count) if shown < count else ""


def hide_frame(axes: Any) -> None:
    """Hide the lines above and to the right of the data."""
    axes.spines[["top", "right"]].set_visible(False)


def count_samples(axes: Any) -> None:
    """Samples on the x axis, in thousands from a thousand on."""
    axes.set_xlabel(t("training samples seen"))
    axes.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")


def in_percent(axes: Any) -> None:
    """Shares on the y axis, in percent."""
    axes.set_ylabel(t("share in %"))
    axes.yaxis.set_major_formatter(lambda value, _: f"{100 * value:g}%")
