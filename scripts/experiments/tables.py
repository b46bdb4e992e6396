"""Tables as Markdown and CSV: of each row the paper's values, ours over the seeds, and ours against the reference's."""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from . import arithmetic, cost, weights
from .definition import AVERAGE, MINI, Definition, Row, size_of
from .results import NOT_SCORED, Table, error_of, interval

SHORT = {"minerva_math": "MathQA", "gsm8k": "GSM8K", "mmlu": "MMLU", "bbh": "BBH", "piqa": "PIQA", "mbpp": "MBPP"}
SHORT |= {"boolq": "BoolQ", "ifeval": "IFEval", "pubmedqa": "PubMedQA", "truthfulqa": "TruthfulQA", "wmt16": "WMT16"}
SHORT |= {
    "arc_challenge": "ARC-C",
    "humaneval": "HumanEval",
    "mt_bench": "MT-Bench",
    "tldr": "TLDR",
    AVERAGE: "Average",
}
DASH = "–"
FROM_SCRATCH, CONTINUED = "from random weights", "from the weights of the proxy, as in fine-tuning"
PRETRAINED = "fine-tuning SmolLM2-135M-Instruct"
MINI_SAYS = (
    "Mini preset, {begins}: mean loss on each task's scored part, lower is better. Scores of models this small are not "
    "comparable with the paper's, so the two stand beside each other: compare the order and the differences."
)
PAPER_SAYS = "Paper preset: scores of lm-evaluation-harness in percent, higher is better, as in the paper."


@dataclass(frozen=True)
class Page:
    """What is written of a table: Markdown, and rows for the CSV."""

    markdown: str
    rows: list[list[str]]

    def csv(self) -> str:
        """The rows as CSV."""
        stream = io.StringIO()
        csv.writer(stream, lineterminator="\n").writerows(self.rows)
        return stream.getvalue()


def page(table: Table) -> Page:
    """The table of any kind."""
    kinds = {"cost": _costs, "weights": _weights}
    body, rows = kinds.get(table.definition.kind, _scores)(table)
    return Page(_frame(table, body), rows)


def _frame(table: Table, body: str) -> str:
    definition = table.definition
    scores = MINI_SAYS.format(begins=_begins(table.preset)) if table.is_mini else PAPER_SAYS
    says = {"scores": scores, "weights": "", "cost": ""}
    text = [f"# {definition.heading}: {definition.title}", "", _state(table), ""]
    if sentence := says.get(definition.kind, says["scores"]):
        text += [sentence, ""]
    text += [body, ""]
    if notes := [*definition.notes, *arithmetic.footnotes(definition), *_not_scored(definition)]:
        text += ["Notes:", "", *(f"{number}. {note}" for number, note in enumerate(notes, 1)), ""]
    return "\n".join(text)


def _begins(preset: str) -> str:
    if "smollm2" in MINI[preset].get("size", ""):
        return PRETRAINED
    return CONTINUED if MINI[preset].get("continued") else FROM_SCRATCH


def _state(table: Table) -> str:
    made = _command(table)
    if table.is_mini and table.definition.not_mini:
        return f"Made by `{made}`. Not part of the mini preset, which has {table.definition.not_mini}."
    needed = len(table.wanted) * len(table.seeds)
    return f"Made by `{made}`: {table.done()} of {needed} runs are there. Values are mean ± standard error over seeds."


def _command(table: Table) -> str:
    kind, _, number = table.definition.name.partition("_")
    option = f"--{kind} {number.lstrip('0')} --preset {table.preset} --seeds {len(table.seeds)}"
    return f"python scripts/experiments/reproduce.py {option} --render"


def _not_scored(definition: Definition) -> list[str]:
    names = [SHORT[column] for column in definition.columns if column in NOT_SCORED]
    return [f"{', '.join(names)}: not scored, since lm-evaluation-harness has no judge model for it."] if names else []


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Rows, the first the head, as a table."""
    lines = [rows[0], ["---"] * 2 + ["---:"] * (len(rows[0]) - 2), *rows[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


# --- scores and figures ----------------------------------------------------------------------------------------


def _scores(table: Table) -> tuple[str, list[list[str]]]:
    definition = table.definition
    columns = definition.all_columns
    shown = [["", "", *(SHORT.get(column, column) for column in columns)]]
    plain = [["section", "row", "run", "what", "column", "value", "standard error", "seeds"]]
    section = ""
    for row in definition.rows:
        if row.section != section:
            section = row.section
            shown.append([f"**{section}**", *[""] * (len(columns) + 1)])
        shown += _lines(table, row, columns)
        plain += _plain(table, row, columns)
    return markdown(shown), plain


def _lines(table: Table, row: Row, columns: Sequence[str]) -> list[list[str]]:
    """Up to three lines of a row: the paper's, ours, and the difference from the reference."""
    found = []
    if row.paper:
        places = _decimals(table.definition)
        found.append([row.label, "paper", *(DASH if value is None else f"{value:.{places}f}" for value in row.paper)])
    digits = 3 if table.is_mini else 1
    ours = [list(table.values(row, column).values()) for column in columns]
    if any(ours):
        cells = [interval(values, digits) for values in ours]
        found.append(["" if found else row.label, f"here, {_seeds(ours)}", *cells])
        less = [list(table.difference(row, column).values()) for column in columns]
        if any(less):
            found.append(["", f"less {_name(table.reference(row.base))}", *(interval(v, digits) for v in less)])
    return found or [[row.label, "", *[DASH] * len(columns)]]


def _name(row: Row | None) -> str:
    """A row by its label, or its section, where the label says no more than that it is a level line."""
    return "" if row is None else row.section if row.label == "any" else row.label


def _decimals(definition: Definition) -> int:
    """As many as the paper prints: one, or two."""
    values = [value for row in definition.rows for value in row.paper if value is not None]
    return 1 if all(abs(value - round(value, 1)) < 1e-9 for value in values) else 2


def _seeds(values: Sequence[Sequence[float]]) -> str:
    counts = sorted({len(of_column) for of_column in values if of_column})
    return f"n = {counts[0]}" if len(counts) == 1 else f"n = {counts[0]} to {counts[-1]}"


def _plain(table: Table, row: Row, columns: Sequence[str]) -> list[list[str]]:
    found = []
    for place, column in enumerate(columns):
        head = [row.section, row.label, row.run_of(column) or ""]
        if row.paper and row.paper[place] is not None:
            found.append([*head, "paper", column, f"{row.paper[place]:g}", "", ""])
        for what, by_seed in (("here", table.values(row, column)), ("difference", table.difference(row, column))):
            if values := list(by_seed.values()):
                mean = f"{sum(values) / len(values):.5f}"
                found.append([*head, what, column, mean, f"{error_of(values):.5f}", str(len(values))])
    return found


# --- costs ---------------------------------------------------------------------------------------------------

COSTS = ("paper, PFLOP", "model, PFLOP", "paper, share", "model, share", "model at our sizes, share", "measured, share")


def _costs(table: Table) -> tuple[str, list[list[str]]]:
    """The paper's figures and the analytic model's, and of our own sizes the model's shares and the measured ones."""
    shown = [["", "", *COSTS]]
    for row in table.definition.rows:
        names = [row.more["strategy"]] if "strategy" in row.more else list(table.definition.runs)
        shown += [_cost_line(table, row, strategy, place) for place, strategy in enumerate(names)]
    return markdown(shown), [["row", "strategy", *COSTS], *shown[1:]]


def _cost_line(table: Table, row: Row, strategy: str, place: int) -> list[str]:
    stage = str(row.more.get("stage", "total"))
    printed, base = row.paper[place], table.definition.rows[0].paper[place]
    found = cost.stages(cost.PAPER, strategy)
    value = cost.total(found) if stage == "total" else found.get(stage)
    amounts = [DASH if printed is None else f"{printed:.3g}", DASH if value is None else f"{value / cost.PETA:.3g}"]
    if stage == "base" or (stage == "total" and strategy == "proportional"):
        return [row.label, strategy, *amounts, *[DASH] * 4]
    assert base is not None
    share = DASH if printed is None else _percent(printed / base - (stage == "total"))
    models = [_share(cost.shares(found), stage), DASH]
    if sizes := _own_sizes(table):
        models[1] = _share(cost.shares(cost.stages(sizes, strategy, shared_clusters=True)), stage)
    return [row.label, strategy, *amounts, share, *models, _measured(table, strategy, stage)]


def _own_sizes(table: Table) -> cost.Sizes | None:
    """Those of a mini preset; the paper preset's are the paper's."""
    return cost.MINI_SIZES.get(size_of(table.preset)) if table.is_mini else None


def _share(shares: Mapping[str, float], stage: str) -> str:
    """Of a stage; the total is that of all stages but the training."""
    if stage == "total":
        return _percent(sum(shares.values()))
    return _percent(shares[stage]) if stage in shares else DASH


def _measured(table: Table, strategy: str, stage: str) -> str:
    """Seconds of a stage against those of the training, over the seeds."""
    lines = table.lines.get((strategy, table.definition.base), {}).values()
    runs = [cost.shares(cost.measured(line["cost"])) for line in lines if line.get("cost")]
    parts = [sum(of_run.values()) if stage == "total" else of_run.get(stage) for of_run in runs]
    values = [100 * part for part in parts if part is not None]
    return f"{interval(values, 1)}%" if values else DASH


def _percent(share: float) -> str:
    return (f"{100 * share:.1f}%" if share >= 0.001 else f"{100 * share:.1g}%").replace("-", "−")


# --- weights --------------------------------------------------------------------------------------------------


def _weights(table: Table) -> tuple[str, list[list[str]]]:
    shown = [["domain", "", *table.definition.columns]]
    for row in table.definition.rows:
        shown.append([row.section, f"{row.label}, paper", *(f"{value:g}" for value in row.paper)])
    kept = {run: weights.read(table.preset, run) for run in table.definition.runs}
    for domain in weights.chosen(kept):
        for run, of_run in kept.items():
            shown.append([domain, f"{run}, here", *(f"{value:g}" for value in of_run[domain])])
    return markdown(shown), shown


def write(found: Page, path: Path) -> None:
    """`path`.md and `path`.csv."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.with_suffix(".md").write_text(found.markdown, encoding="utf-8")
    path.with_suffix(".csv").write_text(found.csv(), encoding="utf-8")
