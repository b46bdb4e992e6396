"""Two runs of the mini presets beside each other: mean loss, each task's, those not observed, and what was drawn.

    python scripts/experiments/compare.py mini_continued/dids mini_continued/proportional
    python scripts/experiments/compare.py mini_continued/dids_mix_in_20 mini_continued/dga_mix_in_20 \\
        mini_continued/dids mini_continued/dga                      # how two differences differ: (A - B) - (C - D)

A run is named by the folder of docs/results and the file that it is in. Differences are paired by seed, over the seeds
that all of the runs have, with their 95% interval by Student's t; `lower` counts the seeds where A is lower.
`--seeds 5` leaves seeds out that are above, `--without gsm8k` a task, from the mean too.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llamafactory_dids.errors import DidsError, refuse  # noqa: E402
from scripts.experiments.results import read  # noqa: E402
from scripts.experiments.stats import Results, ends, markdown  # noqa: E402

KINDS = {"losses": "observed tasks", "unseen": "tasks not observed"}
LEAST_SHARE = 0.01  # a source that none of the runs draws more of is not listed


def results_of(name: str) -> Results:
    """The lines of `FOLDER/RUN`, by seed. Raises DidsError where there are none."""
    preset, _, run = name.rpartition("/")
    if not (found := read(preset, run)):
        raise refuse("run", name, "the folder and name of a file in docs/results, such as mini_continued/dids")
    return found


def page(names: Sequence[str], seeds: int | None = None, without: str | None = None) -> str:
    """The table, as Markdown. Raises DidsError for a run without results, and for fewer than two seeds in common."""
    if len(names) not in (2, 4):
        raise refuse("runs", ", ".join(names), "two, or four for the difference of two differences")
    runs = [results_of(name) for name in names]
    common = [seed for seed in sorted(set.intersection(*map(set, runs))) if seeds is None or seed <= seeds]
    if len(common) < 2:
        raise refuse("runs", ", ".join(names), f"runs with at least two seeds in common (they have {len(common)})")
    lines = [[run[seed] for seed in common] for run in runs]
    tasks = {kind: list(lines[0][0].get(kind, {})) for kind in KINDS}
    if any(set(line.get(kind, {})) != set(tasks[kind]) for run in lines for line in run for kind in KINDS):
        raise refuse("runs", ", ".join(names), "runs that were scored on the same tasks")
    if without is not None and without not in (known := sum(tasks.values(), [])):
        raise refuse("--without", without, ", ".join(known))
    signed = "A − B" if len(names) == 2 else "(A − B) − (C − D)"
    rows = [["loss", *"ABCD"[: len(names)], signed, "lower"]]
    for kind, title in KINDS.items():
        left = [task for task in tasks[kind] if task != without]
        if left:
            rows.append(_row(f"**mean of {len(left)} {title}**", lines, _mean_of(kind, left)))
        rows += [_row(task, lines, _mean_of(kind, [task])) for task in left]
    told = ", ".join(f"{letter} = {name}" for letter, name in zip("ABCD", names, strict=False))
    return f"{told}; seeds {', '.join(map(str, common))}\n\n{markdown(rows)}\n{_drawn(names, lines)}"


def _mean_of(kind: str, tasks: Sequence[str]) -> Callable[[Mapping[str, Any]], float]:
    return lambda line: statistics.mean(line[kind][task] for task in tasks)


def _row(label: str, lines: Sequence[Sequence[Mapping[str, Any]]], value: Callable[[Any], float]) -> list[str]:
    values = [[value(line) for line in run] for run in lines]
    differences = [a - b for a, b in zip(*values[:2], strict=True)]
    if len(values) == 4:
        differences = [first - (c - d) for first, c, d in zip(differences, *values[2:], strict=True)]
    lower = sum(difference < 0 for difference in differences)
    means = [f"{statistics.mean(run):.3f}" for run in values]
    return [label, *means, ends(differences), f"{lower} of {len(differences)}"]


def _drawn(names: Sequence[str], lines: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """Mean share of the training samples by source, the largest of A first."""
    means = [_shares(run) for run in lines]
    sources = sorted(set().union(*means), key=lambda source: (-means[0].get(source, 0.0), source))
    rows = [["share of the samples", *"ABCD"[: len(names)]]]
    for source in sources:
        shares = [mean.get(source, 0.0) for mean in means]
        if max(shares) >= LEAST_SHARE:
            rows.append([source, *[f"{share:.1%}" for share in shares]])
    return markdown(rows)


def _shares(run: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    sources = dict.fromkeys(source for line in run for source in line.get("shares", {}))
    return {source: statistics.mean(line.get("shares", {}).get(source, 0.0) for line in run) for source in sources}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs="+", metavar="FOLDER/RUN", help="two, or four: (A - B) - (C - D)")
    parser.add_argument("--seeds", type=int, help="seeds 1 to this; default: all in common")
    parser.add_argument("--without", metavar="TASK", help="a task to leave out")
    given = parser.parse_args()
    try:
        print(page(given.runs, given.seeds, given.without))
    except DidsError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
