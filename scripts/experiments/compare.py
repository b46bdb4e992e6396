"""Two runs of the mini presets beside each other: mean loss, each task's, those not observed, and what was drawn.

    python scripts/experiments/compare.py mini_continued/dids mini_continued/proportional

A run is named by the folder of docs/results and the file that it is in. Differences are paired by seed, over the seeds
that both have, with their 95% interval by Student's t; `lower` counts the seeds where A is lower. `--seeds 5` leaves
out seeds that are above.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llamafactory_dids.errors import DidsError, refuse  # noqa: E402
from scripts.experiments.results import read  # noqa: E402
from scripts.experiments.stats import Results, ends, markdown  # noqa: E402

KINDS = {"losses": "observed tasks", "unseen": "tasks not observed"}
Lines = Sequence[Mapping[str, Any]]  # of a run, in the order of its seeds
LEAST_SHARE = 0.01  # a source that none of the runs draws more of is not listed


def results_of(name: str) -> Results:
    """The lines of `FOLDER/RUN`, by seed. Raises DidsError where there are none."""
    preset, _, run = name.rpartition("/")
    if not (found := read(preset, run)):
        raise refuse("run", name, "the folder and name of a file in docs/results, such as mini_continued/dids")
    return found


def page(name: str, other: str, seeds: int | None = None) -> str:
    """The table, as Markdown.

    Raises DidsError for a run without results, fewer than two seeds in common, and runs of other tasks.
    """
    runs, names = [results_of(name), results_of(other)], f"{name}, {other}"
    common = [seed for seed in sorted(runs[0].keys() & runs[1].keys()) if seeds is None or seed <= seeds]
    if len(common) < 2:
        raise refuse("runs", names, f"runs with at least two seeds in common (they have {len(common)})")
    lines = [[run[seed] for seed in common] for run in runs]
    tasks = {kind: list(lines[0][0].get(kind, {})) for kind in KINDS}
    if any(set(line.get(kind, {})) != set(tasks[kind]) for run in lines for line in run for kind in KINDS):
        raise refuse("runs", names, "runs that were scored on the same tasks")
    rows = [["loss", "A", "B", "A − B", "lower"]]
    for kind, title in KINDS.items():
        if tasks[kind]:
            rows.append(_row(f"**mean of {len(tasks[kind])} {title}**", lines, kind, tasks[kind]))
        rows += [_row(task, lines, kind, [task]) for task in tasks[kind]]
    return f"A = {name}, B = {other}; seeds {', '.join(map(str, common))}\n\n{markdown(rows)}\n{_drawn(lines)}"


def _row(label: str, lines: Sequence[Lines], kind: str, tasks: Sequence[str]) -> list[str]:
    """The mean over some tasks, and its difference by seed."""
    values = [[statistics.mean(line[kind][task] for task in tasks) for line in run] for run in lines]
    differences = [a - b for a, b in zip(*values, strict=True)]
    lower = sum(difference < 0 for difference in differences)
    means = [f"{statistics.mean(run):.3f}" for run in values]
    return [label, *means, ends(differences), f"{lower} of {len(differences)}"]


def _drawn(lines: Sequence[Lines]) -> str:
    """Mean share of the training samples by source, the largest of A first."""
    means = [_shares(run) for run in lines]
    sources = sorted(set().union(*means), key=lambda source: (-means[0].get(source, 0.0), source))
    rows = [["share of the samples", "A", "B"]]
    for source in sources:
        shares = [mean.get(source, 0.0) for mean in means]
        if max(shares) >= LEAST_SHARE:
            rows.append([source, *[f"{share:.1%}" for share in shares]])
    return markdown(rows)


def _shares(run: Lines) -> dict[str, float]:
    sources = dict.fromkeys(source for line in run for source in line.get("shares", {}))
    return {source: statistics.mean(line.get("shares", {}).get(source, 0.0) for line in run) for source in sources}


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("runs", nargs=2, metavar="FOLDER/RUN")
    parser.add_argument("--seeds", type=int, help="seeds 1 to this; default: all in common")
    given = parser.parse_args()
    try:
        print(page(*given.runs, given.seeds))
    except DidsError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
