"""The tables of docs/strategies.md from the committed results: means over seeds, and differences paired by seed."""

import json
import math
import statistics
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "strategies"
PAGE = ROOT / "docs" / "strategies.md"
REFERENCE = "proportional"
STRATEGIES = (
    *("dids", "dids_paper", "dids_lt", "dids_fim", "dids_gc", "dids_joint"),
    *("dga", "doge", "doremi", "velocitune", "importance", "odm", "balance"),
    *("uniform", "proportional", "static", "schedule"),
)

Runs = dict[str, dict[int, dict[str, Any]]]  # strategy: seed: result


def read_runs(path: Path) -> Runs:
    """The results of one base."""
    runs: Runs = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        result = json.loads(line)
        runs.setdefault(result["strategy"], {})[result["seed"]] = result
    return runs


def mean_loss(result: dict[str, Any]) -> float:
    """Over the tasks."""
    return statistics.mean(result["losses"].values())


def interval(values: list[float]) -> str:
    """Mean ± standard error."""
    if len(values) < 2:
        return f"{values[0]:.3f}" if values else "–"
    return f"{statistics.mean(values):.3f} ± {statistics.stdev(values) / math.sqrt(len(values)):.3f}"


def difference(runs: Runs, strategy: str) -> str:
    """Mean loss over the tasks, against the reference with the same seed; negative is better."""
    if strategy == REFERENCE:
        return ""
    pairs = [(runs[strategy][seed], other) for seed, other in runs.get(REFERENCE, {}).items() if seed in runs[strategy]]
    return interval([mean_loss(one) - mean_loss(other) for one, other in pairs]).replace("-", "−")


def table(runs: Runs) -> str:
    """A row a strategy, the lowest mean loss first."""
    tasks = list(next(iter(next(iter(runs.values())).values()))["losses"])
    head = ["strategy", *tasks, "mean", f"against {REFERENCE}", "samples, proxy runs' too", "CPU seconds"]
    rows = [head, ["---"] * len(head)]
    for strategy in sorted(runs, key=lambda name: statistics.mean(map(mean_loss, runs[name].values()))):
        results = list(runs[strategy].values())
        samples = f"{results[0]['samples']:,}" + (f" + {p:,}" if (p := results[0]["proxy_samples"]) else "")
        losses = [interval([result["losses"][task] for result in results]) for task in tasks]
        means = [interval([mean_loss(result) for result in results]), difference(runs, strategy)]
        seconds = f"{statistics.mean(result['cpu_seconds'] for result in results):.0f}"
        rows.append([f"`{strategy}`", *losses, *means, samples, seconds])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def with_tables(page: str) -> str:
    """The page with each table between its markers rebuilt; a base without results keeps what stands there."""
    for path in sorted(RESULTS.glob("*.jsonl")):
        start, end = f"<!-- table {path.stem} -->\n", f"<!-- end {path.stem} -->"
        if start not in page or end not in page:
            raise SystemExit(f"{PAGE.name}: no markers for the table {path.stem}")
        before, _, rest = page.partition(start)
        page = before + start + "\n" + table(read_runs(path)) + "\n" + end + rest.partition(end)[2]
    return page


def write_tables() -> None:
    """Rebuild the tables of the docs."""
    PAGE.write_text(with_tables(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
