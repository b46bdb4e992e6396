"""Compare the quickstart's DIDS runs with its proportional runs: a table of held-out task losses.

    python scripts/quickstart/summary.py quickstart          # a pair of runs: quickstart/{dids,proportional}
    python scripts/quickstart/summary.py quickstart/seeds/*  # a pair in each folder: means ± standard errors

Reads what the runs leave behind, and no model: the losses from LLaMA-Factory's `all_results.json`, the
mixture from `dids/mixture.jsonl` and `dids/domains.json`.
"""

import argparse
import json
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RANDOM_SOURCE = "random_answers"
PREFIX, SUFFIX = "eval_", "_test_loss"


@dataclass(frozen=True)
class Pair:
    """What a DIDS run and the proportional run beside it ended with."""

    folder: Path
    dids: dict[str, float]  # task: held-out loss
    proportional: dict[str, float]
    share: float  # of RANDOM_SOURCE in the final mixture
    proportional_share: float
    num_updates: int
    seconds: tuple[float, float]  # of training: DIDS, proportional

    def difference(self) -> float:
        """Mean over the tasks, DIDS minus proportional: negative where DIDS is better."""
        return statistics.mean(self.dids[task] - self.proportional[task] for task in self.dids)


def read(path: Path) -> str:
    """A file's text; ends the program with one line if there is none."""
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise SystemExit(f"summary: {path}: {error.strerror}; did the run end?") from None


def read_results(folder: Path) -> dict[str, Any]:
    """LLaMA-Factory's metrics of a run."""
    return json.loads(read(folder / "all_results.json"))


def task_losses(results: dict[str, Any], folder: Path) -> dict[str, float]:
    """The held-out loss of each task."""
    names = [name for name in results if name.startswith(PREFIX) and name.endswith(SUFFIX)]
    if not names:
        raise SystemExit(f"summary: {folder / 'all_results.json'}: no {PREFIX}*{SUFFIX} in it")
    return {name.removeprefix(PREFIX).removesuffix(SUFFIX): results[name] for name in sorted(names)}


def source_share(probabilities: dict[str, float], domains: list[dict[str, Any]], source: str) -> float:
    """The share of a mixture's samples that come from `source`: a domain may hold samples of several."""
    return sum(
        probabilities[domain["name"]] * domain["sources"].get(source, 0) / domain["size"]
        for domain in domains
        if domain["size"]
    )


def read_pair(folder: Path) -> Pair:
    """Read `folder`/dids and `folder`/proportional."""
    dids, proportional = read_results(folder / "dids"), read_results(folder / "proportional")
    updates = [json.loads(line) for line in read(folder / "dids/dids/mixture.jsonl").splitlines()]
    domains = json.loads(read(folder / "dids/dids/domains.json"))["domains"]
    sizes = {domain["name"]: domain["size"] for domain in domains}
    proportions = {name: size / sum(sizes.values()) for name, size in sizes.items()}
    return Pair(
        folder=folder,
        dids=task_losses(dids, folder / "dids"),
        proportional=task_losses(proportional, folder / "proportional"),
        share=source_share(updates[-1]["probabilities"], domains, RANDOM_SOURCE),
        proportional_share=source_share(proportions, domains, RANDOM_SOURCE),
        num_updates=sum(not line.get("closing") for line in updates[1:]),  # the first line is the start
        seconds=(dids["train_runtime"], proportional["train_runtime"]),
    )


def spread(values: list[float], sign: str = "") -> str:
    """The mean, and its standard error where there are several values."""
    mean = f"{statistics.mean(values):{sign}.3f}"
    if len(values) == 1:
        return mean
    return f"{mean} ± {statistics.stdev(values) / len(values) ** 0.5:.3f}"


def table(pairs: list[Pair]) -> list[str]:
    """A row for each task, and one for their mean."""
    rows = [("held-out loss", "DIDS", "proportional", "difference")]
    for task in pairs[0].dids:
        rows.append(table_row(task, [(pair.dids[task], pair.proportional[task]) for pair in pairs]))
    means = [(statistics.mean(p.dids.values()), statistics.mean(p.proportional.values())) for p in pairs]
    rows.append(table_row("mean", means))
    widths = [max(len(cells[i]) for cells in rows) for i in range(4)]
    return ["   ".join([c[0].ljust(widths[0]), *map(str.rjust, c[1:], widths[1:])]) for c in rows]


def table_row(name: str, losses: list[tuple[float, float]]) -> tuple[str, str, str, str]:
    """`losses` are those of DIDS and of proportional, a pair a seed."""
    dids, proportional = ([pair[i] for pair in losses] for i in range(2))
    return name, spread(dids), spread(proportional), spread([a - b for a, b in losses], sign="+")


def notes(pairs: list[Pair]) -> list[str]:
    """What the table does not say: who won how often, the random source's share, updates, seconds."""
    share, proportional = (statistics.mean(values) for values in zip(*map(shares, pairs), strict=True))
    seconds = [statistics.mean(values) for values in zip(*(pair.seconds for pair in pairs), strict=True)]
    lines = [
        f"{RANDOM_SOURCE}: {share:.1%} of the final mixture, {proportional:.1%} of the samples",
        f"{min(pair.num_updates for pair in pairs)} updates of the mixture; "
        f"training took {seconds[0]:.0f} s with DIDS, {seconds[1]:.0f} s with proportional",
    ]
    if len(pairs) > 1:
        wins = sum(pair.difference() < 0 for pair in pairs)
        low = sum(pair.share < pair.proportional_share / 2 for pair in pairs)
        lines.insert(0, f"DIDS has the lower mean in {wins} of {len(pairs)} seeds")
        lines[1] += f" (mean; below half of that in {low} of {len(pairs)} seeds)"
    return lines


def shares(pair: Pair) -> tuple[float, float]:
    """Of the random source: in the final mixture, and among the samples."""
    return pair.share, pair.proportional_share


def paths(folder: Path) -> list[str]:
    """Where to look next, of what the DIDS run left."""
    purposes = {
        "comparison.html": "both runs side by side: did it help",
        "dids/dids/report.html": "what DIDS did, on one page",
        "dids/dids/mixture.png": "probabilities over training",
        "dids/dids/mixture.jsonl": "a line an update",
        "dids/dids/domains.json": "what each domain is",
    }
    found = {folder / name: purpose for name, purpose in purposes.items()}
    return [f"  {path}  ({purpose})" for path, purpose in found.items() if path.exists()]


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+", help="each holds the runs dids/ and proportional/")
    pairs = [read_pair(folder) for folder in parser.parse_args().folders]
    print("\n".join([*table(pairs), "", *notes(pairs), "look at", *paths(pairs[0].folder)]))


if __name__ == "__main__":
    main()
