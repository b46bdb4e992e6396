"""The picture of README.md and docs/results.md: by how much each strategy ends below proportional sampling.

    python scripts/experiments/figures.py            # docs/images/results.svg, from docs/results

A row a strategy, a colour a preset. A dot is the mean difference of the mean test loss, paired by seed; its line is the
95% interval by Student's t.
"""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.experiments.pages import TITLES, interval, paired  # noqa: E402
from scripts.experiments.runner import read_results  # noqa: E402

FILE = ROOT / "docs" / "images" / "results.svg"
REFERENCE = "proportional"
STRATEGIES = ("dids", "importance", "dga", "doge", "doremi", "uniform", "velocitune")
COLOURS = ("#1f77b4", "#d62728", "#2ca02c")
INK = "#707070"  # told from white and from black


def differences(run: str, preset: str, kind: str = "losses") -> list[float]:
    """Mean loss of a run less that of the reference, by seed in common."""
    return paired(read_results(run, preset), read_results(REFERENCE, preset), kind)


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
    for number, (preset, colour) in enumerate(zip(presets, COLOURS, strict=False)):
        shift = (number - (len(presets) - 1) / 2) * 0.22
        for row, run in enumerate(strategies):
            if len(found := differences(run, preset, kind)) > 1:
                mean, low, high = interval(found)
                axes.plot([low, high], [row + shift] * 2, color=colour, linewidth=1.5)
                axes.plot([mean], [row + shift], "o", color=colour, markersize=4)
        axes.plot([], [], "o-", color=colour, label=TITLES[preset], markersize=4)
    axes.axvline(0, color=INK, linewidth=1, linestyle=":")
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(f"test loss less that of {REFERENCE} (nats)")
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    FILE.write_text(draw(), encoding="utf-8")
