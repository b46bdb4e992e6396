"""The picture of README.md and docs/results.md, and the paper's figures with our points beside theirs.

    python scripts/experiments/figures.py            # docs/images/results.svg, from docs/results

The picture: by how much each strategy ends below proportional sampling. A row a strategy, a colour a preset; a dot is
the mean difference of the mean test loss, paired by seed, its line the 95% interval.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llamafactory_dids.report import canvas, colours  # noqa: E402
from scripts.experiments.definition import AVERAGE  # noqa: E402
from scripts.experiments.pages import TITLES  # noqa: E402
from scripts.experiments.results import Table, read  # noqa: E402
from scripts.experiments.stats import estimate, mean_of, paired  # noqa: E402

FILE = ROOT / "docs" / "images" / "results.svg"
REFERENCE = "proportional"
STRATEGIES = ("dids", "importance", "dga", "doge", "doremi", "uniform", "velocitune")
COLOURS = ("#1f77b4", "#d62728", "#2ca02c", "#9467bd")
INK = "#707070"  # told from white and from black


def differences(run: str, preset: str, kind: str = "losses") -> list[float]:
    """Mean loss of a run less that of the reference, by seed in common."""
    return paired(read(preset, run), read(preset, REFERENCE), kind)


def draw(strategies: Sequence[str] = STRATEGIES) -> str:
    """The SVG, of the presets that the first strategy was run in. A strategy with fewer than two seeds has no dot."""
    presets = [preset for preset in TITLES if len(differences(strategies[0], preset)) > 1]
    style = {"svg.fonttype": "none", "svg.hashsalt": "results", "font.size": 10}
    style |= dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK)
    with rc_context(style):
        figure = Figure(figsize=(8, 3.4), layout="constrained")
        observed, others = figure.subplots(1, 2, sharey=True)
        _panel(observed, "tasks observed", "losses", strategies, presets)
        _panel(others, "tasks not observed", "unseen", strategies, presets)
        observed.set_yticks(range(len(strategies)), strategies)
        observed.invert_yaxis()
        figure.legend(*observed.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
        stream = io.StringIO()
        figure.savefig(stream, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
        return stream.getvalue()


def _panel(axes: Axes, title: str, kind: str, strategies: Sequence[str], presets: Sequence[str]) -> None:
    for number, (preset, colour) in enumerate(zip(presets, COLOURS[: len(presets)], strict=True)):
        shift = (number - (len(presets) - 1) / 2) * 0.22
        for row, run in enumerate(strategies):
            if len(found := differences(run, preset, kind)) > 1:
                mean, half, *_ = estimate(found)
                axes.plot([mean - half, mean + half], [row + shift] * 2, color=colour, linewidth=1.5)
                axes.plot([mean], [row + shift], "o", color=colour, markersize=4)
        axes.plot([], [], "o-", color=colour, label=TITLES[preset], markersize=4)
    axes.axvline(0, color=INK, linewidth=1, linestyle=":")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(f"test loss less that of {REFERENCE} (nats)")
    axes.spines[["top", "right"]].set_visible(False)


# --- the paper's figures ---------------------------------------------------------------------------------------

MARKERS = "os^Dv<>Ph"


def draw_table(table: Table) -> bytes:
    """A figure as PNG: the paper's points on the left, ours with their 95% intervals on the right."""
    figure = canvas.new_figure(9.0, 3.6)
    left, right = figure.subplots(1, 2)
    rows = table.definition.rows
    printed = [[row.paper[0]] if row.paper and row.paper[0] is not None else [] for row in rows]
    ours = [list(table.values(row, AVERAGE).values()) for row in rows]
    _points(left, table, printed, "the paper", "average score")
    _points(right, table, ours, f"{table.preset} preset", "mean loss" if table.is_mini else "average score")
    found: dict[str, Any] = {}
    for axes in (left, right):
        for handle, name in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    if found:
        figure.legend(found.values(), found, loc="outside lower center", ncols=4, frameon=False)
    return canvas.png(figure)


def _points(axes: Any, table: Table, values: Sequence[Sequence[float]], title: str, y: str) -> None:
    """A line a section; points without an x are level lines, since they do not depend on it."""
    for index, section in enumerate(dict.fromkeys(row.section for row in table.definition.rows)):
        rows = zip(table.definition.rows, values, strict=True)
        of_section = [(row, mean_of(found)) for row, found in rows if row.section == section and found]
        points = [(row.x, found.mean, found.half or 0.0) for row, found in of_section if row.x is not None]
        if points:
            xs, ys, errors = zip(*sorted(points), strict=True)
            style = {"marker": MARKERS[index], "color": colours.colour(index), "capsize": 2, "label": section}
            axes.errorbar(xs, ys, yerr=errors, linewidth=1.5, **style)
        for place, (row, found) in enumerate((row, found) for row, found in of_section if row.x is None):
            name = section if row.label == "any" else row.label
            dash = ("--", ":", "-.")[place % 3]
            axes.axhline(found.mean, color=colours.colour(index), linestyle=dash, linewidth=1, label=name)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(table.definition.axis)
    axes.set_ylabel(y)
    canvas.hide_frame(axes)


if __name__ == "__main__":
    FILE.write_text(draw(), encoding="utf-8")
