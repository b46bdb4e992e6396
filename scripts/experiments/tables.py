"""The paper's tables as Markdown: of each row the paper's values, ours over seeds, and ours less the reference's."""

import random
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from llamafactory_dids.artifacts.mixture_log import MixtureLog, find_log

from . import cost
from .definition import AVERAGE, MINI, Definition, Row, size_of
from .results import NOT_SCORED, Table
from .stats import markdown, plus_minus

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


def page(table: Table) -> str:
    """The table of any kind."""
    definition = table.definition
    body = {"cost": _costs, "weights": _weights}.get(definition.kind, _scores)(table)
    text = [f"# {definition.heading}: {definition.title}", "", _state(table), ""]
    if definition.kind not in ("cost", "weights"):
        text += [MINI_SAYS.format(begins=_begins(table.preset)) if table.is_mini else PAPER_SAYS, ""]
    text += [markdown(body, right=2)]
    if notes := [*definition.notes, *_not_scored(definition)]:
        text += ["Notes:", "", *(f"{number}. {note}" for number, note in enumerate(notes, 1)), ""]
    return "\n".join(text)


def _begins(preset: str) -> str:
    if "smollm2" in MINI[preset].get("size", ""):
        return PRETRAINED
    return CONTINUED if MINI[preset].get("continued") else FROM_SCRATCH


def _state(table: Table) -> str:
    kind, _, number = table.definition.name.partition("_")
    option = f"--{kind} {number.lstrip('0')} --preset {table.preset} --seeds {len(table.seeds)}"
    made = f"Made by `python scripts/experiments/reproduce.py {option} --render`"
    if table.is_mini and table.definition.not_mini:
        return f"{made}. Not part of the mini preset, which has {table.definition.not_mini}."
    needed = len(table.wanted) * len(table.seeds)
    return f"{made}: {table.done()} of {needed} runs are there. Values are mean ± half of the 95% interval over seeds."


def _not_scored(definition: Definition) -> list[str]:
    names = [SHORT[column] for column in definition.columns if column in NOT_SCORED]
    return [f"{', '.join(names)}: not scored, since lm-evaluation-harness has no judge model for it."] if names else []


# --- scores and figures ----------------------------------------------------------------------------------------


def _scores(table: Table) -> list[list[str]]:
    columns = table.definition.all_columns
    shown = [["", "", *(SHORT.get(column, column) for column in columns)]]
    section = ""
    for row in table.definition.rows:
        if row.section != section:
            section = row.section
            shown.append([f"**{section}**", *[""] * (len(columns) + 1)])
        shown += _lines(table, row, columns)
    return shown


def _lines(table: Table, row: Row, columns: Sequence[str]) -> list[list[str]]:
    """Up to three lines of a row: the paper's, ours, and the difference from the reference."""
    found = []
    if row.paper:
        places = _decimals(table.definition)
        found.append([row.label, "paper", *(DASH if value is None else f"{value:.{places}f}" for value in row.paper)])
    digits = 3 if table.is_mini else 1
    ours = [list(table.values(row, column).values()) for column in columns]
    if any(ours):
        cells = [plus_minus(values, digits) for values in ours]
        found.append(["" if found else row.label, f"here, {_seeds(ours)}", *cells])
        less = [table.difference(row, column) for column in columns]
        if any(less):
            found.append(["", f"less {_name(table.reference(row.base))}", *(plus_minus(v, digits) for v in less)])
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


# --- costs ---------------------------------------------------------------------------------------------------

COSTS = ("paper, PFLOP", "model, PFLOP", "paper, share", "model, share", "model at our sizes, share", "measured, share")


def _costs(table: Table) -> list[list[str]]:
    """The paper's figures and the analytic model's, and of our own sizes the model's shares and the measured ones."""
    shown = [["", "", *COSTS]]
    for row in table.definition.rows:
        names = [row.more["strategy"]] if "strategy" in row.more else list(table.definition.runs)
        shown += [_cost_line(table, row, strategy, place) for place, strategy in enumerate(names)]
    return shown


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
    if table.is_mini and (sizes := cost.MINI_SIZES.get(size_of(table.preset))):
        models[1] = _share(cost.shares(cost.stages(sizes, strategy, shared_clusters=True)), stage)
    return [row.label, strategy, *amounts, share, *models, _measured(table, strategy, stage)]


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
    return plus_minus(values, 1, "%")


def _percent(share: float) -> str:
    return (f"{100 * share:.1f}%" if share >= 0.001 else f"{100 * share:.1g}%").replace("-", "−")


# --- weights --------------------------------------------------------------------------------------------------

TENTHS = 11
SHOWN = 10  # domains, as in the paper


def _weights(table: Table) -> list[list[str]]:
    """The weights of domains over a training: the paper's, and those of the first seed's runs, where they are."""
    shown = [["domain", "", *table.definition.columns]]
    for row in table.definition.rows:
        shown.append([row.section, f"{row.label}, paper", *(f"{value:g}" for value in row.paper)])
    found = {run: condense(folder) for run, folder in table.folders.items() if (folder / "dids/mixture.jsonl").exists()}
    for domain in chosen(found):
        shown += [
            [domain, f"{run}, here", *(f"{value:g}" for value in of_run[domain])] for run, of_run in found.items()
        ]
    return shown


def condense(run: Path) -> dict[str, list[float]]:
    """Each domain's weight in percent at 0%, 10% … 100% of the way from the first update to the last."""
    record = MixtureLog(find_log(run)).record()
    points = np.linspace(record.samples_U[0], record.samples_U[-1], TENTHS)
    lines = np.searchsorted(record.samples_U, points, side="right") - 1  # the last update at or before each point
    percent_DU = 100 * record.probabilities_UD[lines].T
    return {name: [round(float(w), 2) for w in row] for name, row in zip(record.domain_names, percent_DU, strict=True)}


def chosen(weights: Mapping[str, Mapping[str, list[float]]], seed: int = 1) -> list[str]:
    """The domains that are shown: ten at random of those that all runs have, the same whenever it is asked."""
    shared = sorted(set.intersection(*(set(of_run) for of_run in weights.values()))) if weights else []
    return sorted(random.Random(seed).sample(shared, min(SHOWN, len(shared))))
