"""The definitions of tables and figures: YAML files that say which run stands in which row, and the paper's values.

A file has `title`, `columns`, `rows`; `kind` is scores (the default), figure, cost, weights or data. A row has a
`label`, a `section`, the `run` whose results it shows (`{column}` in it is a run a column), that of the mini presets
(`mini`) where it is another, the `base` model and data where they are not the table's, and `paper`: the values as
printed, the average last where the table has one.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import yaml

from llamafactory_dids.errors import DidsError

FOLDER = Path(__file__).resolve().parent / "definitions"
TASKS = ("bbh", "boolq", "gsm8k", "minerva_math", "ifeval", "mmlu", "piqa", "pubmedqa", "truthfulqa")
KINDS = ("scores", "figure", "cost", "weights", "data")
BASES = ("llama_tulu", "mistral_tulu", "llama_openhermes", "mistral_openhermes")
MINI: dict[str, dict[str, Any]] = {  # what each asks of runner.py: the size, and random weights or the proxy's
    "mini": {},
    "mini_continued": {"continued": True},
    "mini_continued_fp32": {"continued": True, "fp32": True},
    "mini_3m": {"size": "cpu_3m"},
    "mini_3m_continued": {"size": "cpu_3m", "continued": True},
    "mini_gpu": {"size": "gpu"},
    "mini_smollm2": {"size": "smollm2"},
    "mini_smollm2_gpu": {"size": "smollm2_gpu"},
}
PRESETS = (*MINI, "paper")
AVERAGE = "average"


def size_of(preset: str) -> str:
    """runner.py's --size of a mini preset."""
    return str(MINI[preset].get("size", "cpu"))


@dataclass(frozen=True)
class Row:
    """A line of a table, or a point of a figure at `x`."""

    label: str
    section: str
    run: str | None
    base: str
    paper: tuple[float | None, ...]
    x: float | None = None
    more: Mapping[str, Any] = field(default_factory=dict)  # what only its kind of table knows

    def run_of(self, column: str) -> str | None:
        """The run that a column shows."""
        return None if self.run is None else self.run.replace("{column}", column)


@dataclass(frozen=True)
class Definition:
    """One table or figure."""

    name: str  # table_01, figure_2a; all else is a key of its file
    title: str
    columns: tuple[str, ...]
    rows: tuple[Row, ...]
    kind: str = "scores"
    average: bool = False
    base: str = BASES[0]
    reference: str | None = None
    notes: tuple[str, ...] = ()
    not_mini: str | None = None
    axis: str = ""
    runs: tuple[str, ...] = ()  # beside those of the rows

    @property
    def heading(self) -> str:
        """`Table 1`, `Figure 2a`."""
        kind, _, number = self.name.partition("_")
        return f"{kind.capitalize()} {number.lstrip('0')}"

    @property
    def all_columns(self) -> tuple[str, ...]:
        """The columns with values, the average among them."""
        return (*self.columns, AVERAGE) if self.average else self.columns

    def in_mini(self) -> "Definition":
        """The same with the runs that the mini presets show."""
        return replace(self, rows=tuple(replace(row, run=row.more.get("mini", row.run)) for row in self.rows))

    def tasks_of(self) -> tuple[str, ...]:
        """The tasks whose values a row shows: those of the columns, or all nine where these are no tasks."""
        return self.columns if self.kind == "scores" else TASKS

    def wanted(self) -> list[tuple[str, str]]:
        """Each (run, base) that the table shows, once, in its order."""
        found = {
            (run, row.base): None
            for row in self.rows
            for column in self.tasks_of()
            if (run := row.run_of(column)) is not None
        }
        return [*found, *((run, self.base) for run in self.runs if (run, self.base) not in found)]


def load(path: Path) -> Definition:
    """Read and check a file. Raises DidsError, naming the file and what is wrong in it."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    keys = {one.name for one in fields(Definition)} - {"name"}
    if unknown := sorted(set(values) - keys):
        raise DidsError(f"{path.name}: got {unknown[0]!r}, allowed: {', '.join(sorted(keys))}")
    made = Definition(name=path.stem, **values)
    for key, value, allowed in (("kind", made.kind, KINDS), ("base", made.base, BASES)):
        if value not in allowed:
            raise DidsError(f"{path.name}: {key}: got {value!r}, allowed: {', '.join(allowed)}")
    columns = tuple(map(str, made.columns))
    rows = tuple(_row(path.name, entry, made.base, len(columns) + made.average) for entry in values["rows"])
    return replace(made, columns=columns, rows=rows, notes=tuple(made.notes), runs=tuple(made.runs))


def _row(file: str, entry: Mapping[str, Any], base: str, width: int) -> Row:
    known = {"label", "section", "run", "base", "paper", "x"}
    paper = tuple(entry.get("paper", ()))
    if paper and len(paper) != width:
        raise DidsError(f"{file}: {entry['label']}: got {len(paper)} values of the paper, allowed: {width}")
    own = entry.get("base", base)
    if own not in BASES:
        raise DidsError(f"{file}: {entry['label']}: base: got {own!r}, allowed: {', '.join(BASES)}")
    return Row(
        label=str(entry["label"]),
        section=str(entry.get("section", "")),
        run=entry.get("run"),
        base=own,
        paper=paper,
        x=entry.get("x"),
        more={key: value for key, value in entry.items() if key not in known},
    )


def load_all() -> dict[str, Definition]:
    """All definitions by name, in the order of their names."""
    return {path.stem: load(path) for path in sorted(FOLDER.glob("*.yaml"))}


def find(kind: str, number: str) -> list[Definition]:
    """What `--table 2/8` or `--figure 2a` asks for; DidsError with all that there is for another number."""
    known = {name: one for name, one in load_all().items() if name.startswith(f"{kind}_") and one.kind != "data"}
    numbers = {name.partition("_")[2].lstrip("0"): one for name, one in known.items()}
    wanted = [part.strip().lower().lstrip("0") for part in number.split("/")]
    if unknown := [part for part in wanted if part not in numbers]:
        raise DidsError(f"--{kind}: got {unknown[0]!r}, allowed: {', '.join(numbers)}")
    return [numbers[part] for part in wanted]
