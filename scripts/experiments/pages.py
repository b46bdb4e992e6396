"""The tables of README.md, README_zh.md and docs/results.md, from the committed results of the mini preset.

    python scripts/experiments/pages.py            # rebuilds every table between its markers

A marker names the folders of docs/results and the runs; the kinds of table:

    <!-- mini: RUN, RUN | against: RUN, RUN -->            mean losses, and differences to each of the latter
    <!-- mini, mini_continued: RUN, RUN -->               a column a folder: the first run, and the others less it
    <!-- mini tasks: RUN, RUN -->                         the loss on each task

Means are over seeds. Differences are paired by seed, with their 95% interval by Student's t; bold where it excludes
zero.
"""

import math
import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scipy import stats

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.experiments.runner import read_results  # noqa: E402

PAGES = (ROOT / "README.md", ROOT / "README_zh.md", ROOT / "docs" / "results.md")
MARKER = re.compile(
    r"<!-- (?P<presets>mini[\w, ]*?)(?P<tasks> tasks)?: (?P<runs>[^|>]*?)(\| against: (?P<against>[^|>]*?))?-->\n"
    r".*?<!-- end -->",
    re.DOTALL,
)

TITLES = {"mini_continued": "continued, 0.92M", "mini_3m_continued": "continued, 3.15M", "mini": "from scratch, 0.92M"}

Results = dict[int, dict[str, Any]]  # by seed


def mean_loss(result: dict[str, Any], kind: str = "losses") -> float:
    """Over the tasks."""
    return statistics.mean(result[kind].values())


def interval(differences: Sequence[float]) -> tuple[float, float, float]:
    """Mean and the ends of its 95% interval (Student's t). Raises ValueError for fewer than two."""
    if len(differences) < 2:
        raise ValueError(f"differences: got {len(differences)}, allowed: at least 2")
    mean, error = statistics.mean(differences), statistics.stdev(differences) / math.sqrt(len(differences))
    half = float(stats.t.ppf(0.975, len(differences) - 1)) * error
    return mean, mean - half, mean + half


def shown(differences: Sequence[float]) -> str:
    """Mean and 95% interval of differences, one a seed; bold where the interval excludes zero."""
    mean, low, high = interval(differences)
    text = f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]".replace("-", "−")
    return f"**{text}**" if low > 0 or high < 0 else text


def paired(run: Results, other: Results, kind: str = "losses") -> list[float]:
    """Mean loss of a run less that of another, for each seed in common."""
    common = sorted(run.keys() & other.keys())
    return [mean_loss(run[seed], kind) - mean_loss(other[seed], kind) for seed in common]


def difference(run: Results, other: Results, kind: str = "losses") -> str:
    """Mean loss of a run less that of another, paired by seed; empty with fewer than two seeds in common."""
    pairs = paired(run, other, kind)
    return "" if run == other or len(pairs) < 2 else shown(pairs)


def mean_of(results: Results, kind: str = "losses") -> float:
    """Over the tasks and the seeds."""
    return statistics.mean(mean_loss(result, kind) for result in results.values())


def table(names: Sequence[str], against: Sequence[str], preset: str = "mini") -> str:
    """A row a run, the lowest mean loss first; runs without a result are named below."""
    found = {name: results for name in names if (results := read_results(name, preset))}
    others = {name: read_results(name, preset) for name in against}
    head = ["run", "seeds", "mean loss", *[f"less that of `{name}`" for name in against], "not observed"]
    rows = [[*head, "samples", "CPU s"]]
    for name in sorted(found, key=lambda name: mean_of(found[name])):
        results = list(found[name].values())
        columns = [f"`{name}`", str(len(results)), f"{mean_of(found[name]):.3f}"]
        columns += [difference(found[name], other) for other in others.values()]
        columns.append(f"{mean_of(found[name], 'unseen'):.3f}")
        proxy = statistics.mean(result["proxy_samples"] for result in results)
        columns.append(f"{results[0]['samples']:,}" + (f" + {proxy:,.0f}" if proxy else ""))
        columns.append(f"{statistics.mean(result['cpu_seconds'] for result in results):.0f}")
        rows.append(columns)
    missing = [name for name in names if name not in found]
    note = f"\nNot run: {', '.join(missing)}.\n" if missing else ""
    return markdown(rows) + note


def differences_table(names: Sequence[str], presets: Sequence[str]) -> str:
    """A row a run; of each preset the mean loss of the first run, and by how much the others are above it.

    The last column is the same of the tasks that no run observes, in the first preset.
    """
    first = names[0]
    columns = [(preset, "losses") for preset in presets] + [(presets[0], "unseen")]
    titles = [TITLES.get(preset, preset) for preset in presets]
    rows = [["run", *titles, f"{titles[0]}: tasks not observed"]]
    for name in names:
        row = [f"`{name}`"]
        for preset, kind in columns:
            results, reference = read_results(name, preset), read_results(first, preset)
            own = name == first and results
            row.append(f"{mean_of(results, kind):.3f}" if own else difference(results, reference, kind) or "–")
        rows.append(row)
    return markdown(rows)


def tasks_table(names: Sequence[str], preset: str = "mini") -> str:
    """A row a run, in the order given: the mean loss on each task, and on each that no run observed."""
    found = {name: results for name in names if (results := read_results(name, preset))}
    one = next(iter(next(iter(found.values())).values()))
    kinds = [(kind, task) for kind in ("losses", "unseen") for task in one[kind]]
    rows = [["run", *[f"{task} (unseen)" if kind == "unseen" else task for kind, task in kinds]]]
    for name, results in found.items():
        means = [statistics.mean(result[kind][task] for result in results.values()) for kind, task in kinds]
        rows.append([f"`{name}`", *[f"{mean:.2f}" for mean in means]])
    return markdown(rows)


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first the head, as a table."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def rebuilt(page: str) -> str:
    """The page with every table made anew."""

    def replace(match: re.Match[str]) -> str:
        runs, against = (split(match[name]) for name in ("runs", "against"))
        presets = split(match["presets"])
        if match["tasks"]:
            made = tasks_table(runs, presets[0])
        elif len(presets) > 1:
            made = differences_table(runs, presets)
        else:
            made = table(runs, against, presets[0])
        return f"{match[0].partition('-->')[0]}-->\n\n{made}\n<!-- end -->"

    return MARKER.sub(replace, page)


def split(words: str | None) -> list[str]:
    """Names, comma-separated."""
    return [word.strip() for word in (words or "").split(",") if word.strip()]


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(rebuilt(path.read_text(encoding="utf-8")), encoding="utf-8")
