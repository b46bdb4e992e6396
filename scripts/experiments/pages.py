"""The tables of the two READMEs, docs/results.md and docs/strategies.md, from the committed results of the mini preset.

    python scripts/experiments/pages.py            # rebuilds every table between its markers

A marker names the folders of docs/results and the runs; the kinds of table:

    <!-- mini: RUN, RUN | against: RUN, RUN -->            mean losses, and differences to each of the latter
    <!-- mini, mini_continued: RUN, RUN -->               a column a folder, or one: the first run, the others less it
    <!-- mini tasks: RUN, RUN -->                         the loss on each task

Means are over seeds. Differences are paired by seed, with their 95% interval by Student's t; bold where it excludes
zero. With one seed in common they have no interval.
"""

import re
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llamafactory_dids.config import split_list  # noqa: E402
from scripts.experiments.results import read  # noqa: E402
from scripts.experiments.stats import difference, markdown, mean_of_runs  # noqa: E402

PAGES = tuple(ROOT / name for name in ("README.md", "README_zh.md", "docs/results.md", "docs/strategies.md"))
MARKER = re.compile(
    r"<!-- (?P<presets>mini[\w, ]*?)(?P<tasks> tasks)?: (?P<runs>[^|>]*?)(\| against: (?P<against>[^|>]*?))?-->\n"
    r".*?<!-- end -->",
    re.DOTALL,
)

TITLES = {
    "mini_smollm2": "SmolLM2-135M",
    "mini_continued": "continued",
    "mini_3m_continued": "continued, 3.15M",
    "mini": "from scratch",
}


def table(names: Sequence[str], against: Sequence[str], preset: str = "mini") -> str:
    """A row a run, the lowest mean loss first; runs without a result are named below."""
    found = {name: results for name in names if (results := read(preset, name))}
    others = {name: read(preset, name) for name in against}
    head = ["run", "seeds", "mean loss", *[f"less that of `{name}`" for name in against], "not observed"]
    rows = [[*head, "samples", "CPU s"]]
    for name in sorted(found, key=lambda name: mean_of_runs(found[name])):
        results = list(found[name].values())
        columns = [f"`{name}`", str(len(results)), f"{mean_of_runs(found[name]):.3f}"]
        columns += [difference(found[name], other) for other in others.values()]
        columns.append(f"{mean_of_runs(found[name], 'unseen'):.3f}")
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
            results, reference = read(preset, name), read(preset, first)
            own = name == first and results
            row.append(f"{mean_of_runs(results, kind):.3f}" if own else difference(results, reference, kind) or "–")
        rows.append(row)
    return markdown(rows)


def tasks_table(names: Sequence[str], preset: str = "mini") -> str:
    """A row a run, in the order given: the mean loss on each task, and on each that no run observed."""
    found = {name: results for name in names if (results := read(preset, name))}
    one = next(iter(next(iter(found.values())).values()))
    kinds = [(kind, task) for kind in ("losses", "unseen") for task in one[kind]]
    rows = [["run", *[f"{task} (unseen)" if kind == "unseen" else task for kind, task in kinds]]]
    for name, results in found.items():
        means = [statistics.mean(result[kind][task] for result in results.values()) for kind, task in kinds]
        rows.append([f"`{name}`", *[f"{mean:.2f}" for mean in means]])
    return markdown(rows)


def rebuilt(page: str) -> str:
    """The page with every table made anew."""

    def replace(match: re.Match[str]) -> str:
        runs, against = (split_list(match[name]) for name in ("runs", "against"))
        presets = split_list(match["presets"])
        if match["tasks"]:
            made = tasks_table(runs, presets[0])
        elif against:
            made = table(runs, against, presets[0])
        else:
            made = differences_table(runs, presets)
        return f"{match[0].partition('-->')[0]}-->\n\n{made}\n<!-- end -->"

    return MARKER.sub(replace, page)


if __name__ == "__main__":
    for path in PAGES:
        path.write_text(rebuilt(path.read_text(encoding="utf-8")), encoding="utf-8")
