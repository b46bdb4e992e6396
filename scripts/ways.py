"""Which ways to train were tested: the tables of `docs/ways.md`, of `docs/results/ways.json`, which the tests fill.

    python scripts/ways.py run [pytest arguments]   run the cells (all, or what -k names) and keep their outcomes
    python scripts/ways.py table                    write the page's tables anew

A cell is a stage, a finetuning type and a way to spread a run over processes. An outcome stays until its cell is run
anew; a cell that was skipped, for a package that is not there, or failed, has none.
"""

import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from itertools import groupby, product
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "docs" / "results" / "ways.json"
PAGE = ROOT / "docs" / "ways.md"
CELLS_TEST = "tests/integration/test_ways.py"
PROPERTY = "way"

STAGES = ("sft", "pt", "dpo", "kto", "rm", "ppo")
TYPES = ("full", "freeze", "lora", "dora", "rslora", "pissa", "qlora")
PARALLELISMS = ("one process", "DDP", "ZeRO-2", "ZeRO-3", "FSDP2", "Ray")
CELLS = tuple(product(STAGES, TYPES, PARALLELISMS))

Cell = tuple[str, ...]
Rows = list[tuple[str, ...]]


def read(path: Path = RESULTS) -> dict[Cell, str]:
    """The outcome of each cell that has one."""
    if not path.exists():
        return {}
    return {tuple(key.split(" / ")): outcome for key, outcome in json.loads(path.read_text(encoding="utf-8")).items()}


def write(outcomes: dict[Cell, str], path: Path = RESULTS) -> None:
    ordered = {" / ".join(cell): outcomes[cell] for cell in CELLS if cell in outcomes}
    path.write_text(json.dumps(ordered, indent=1) + "\n", encoding="utf-8")


def outcomes_of(report: Path) -> dict[Cell, str]:
    """The cells that a report of pytest (JUnit's XML) has; one whose test did not pass has none."""
    found = {}
    for case in ElementTree.parse(report).iter("testcase"):
        if any(case.find(kind) is not None for kind in ("failure", "error", "skipped")):
            continue
        for entry in case.iter("property"):
            if entry.get("name") == PROPERTY:
                *cell, outcome = json.loads(entry.get("value", ""))
                found[tuple(cell)] = outcome
    return found


def rebuilt(page: str, outcomes: dict[Cell, str]) -> str:
    """The page with its tables made anew. Raises ValueError for a cell without an outcome."""
    for name, tables in (("cells", [cells(outcomes)]), ("options", options())):
        text = "\n".join("".join(f"| {' | '.join(row)} |\n" for row in rows) for rows in tables)
        begin, end = f"<!-- {name} -->\n", "<!-- end -->\n"
        before, _, after = page.partition(begin)
        page = f"{before}{begin}\n{text}\n{end}{after.partition(end)[2]}"
    return page


def cells(outcomes: dict[Cell, str]) -> Rows:
    """A row for each stage and the finetuning types whose outcomes are the same."""
    if missing := [cell for cell in CELLS if cell not in outcomes]:
        raise ValueError(f"{len(missing)} cells have no outcome, the first: {' / '.join(missing[0])}")
    rows: Rows = [("stage", "finetuning type", *PARALLELISMS), ("---",) * (2 + len(PARALLELISMS))]
    for stage in STAGES:
        by_type = {kind: tuple(outcomes[stage, kind, name] for name in PARALLELISMS) for kind in TYPES}
        for found, kinds in groupby(TYPES, by_type.__getitem__):
            rows.append((f"`{stage}`", ", ".join(f"`{kind}`" for kind in kinds), *found))
    return rows


def options() -> list[Rows]:
    """A table of each of the host's argument classes: what is refused, what is handled, what is left alone."""
    from llamafactory_dids.integration.arguments.host_options import TABLES

    return [
        [("option", f"of `{kind.__name__}`"), ("---", "---")]
        + [(", ".join(f"`{name}`" for name in entry.names.split()), entry.words()) for entry in table]
        for kind, table in TABLES.items()
    ]


def run(arguments: list[str]) -> int:
    """Run the cells and keep the outcomes of those that passed; the status is that of pytest."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        options = [f"--junitxml={report}", f"--basetemp={folder}/runs", "-q", *arguments]
        command = [sys.executable, "-m", "pytest", CELLS_TEST, *options]
        status = subprocess.run(command, cwd=ROOT, env={**os.environ, "DIDS_ALL_WAYS": "1"}).returncode
        if report.exists():
            write(read() | outcomes_of(report))
    return status


def main() -> int:
    wanted = sys.argv[1:2]
    if wanted == ["run"]:
        return run(sys.argv[2:])
    if wanted == ["table"]:
        PAGE.write_text(rebuilt(PAGE.read_text(encoding="utf-8"), read()), encoding="utf-8")
        return 0
    raise SystemExit(__doc__)


if __name__ == "__main__":
    sys.exit(main())
