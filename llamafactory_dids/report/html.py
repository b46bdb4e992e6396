"""`report.html`: one file that explains a run, or compares several, and opens without a network.

Texts of the data are arbitrary, so the templates escape everything; pictures are data URIs, style and script inline.
Beyond a thousand domains the file stays below 2 MB: curves are thinned, typical texts are cut to a budget.
"""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..artifacts.files import write_text
from ..artifacts.mixture_log import find_log
from ..errors import DidsError
from ..text import beginning
from . import cost
from .canvas import COLOURS
from .compare import PROGRESS, Comparison, compare, held_out
from .impact import mean_impact
from .pictures import render, save_pictures
from .run import Run, load_run, movers
from .verdict import duration, judge, percent

MAX_POINTS = 40  # of a curve in the file
TEXT_BUDGET = 300_000  # bytes of typical texts in all
MAX_NUMBERS = 2000  # impacts that are also told task by task
CURVE_UNIT = 100_000  # probabilities are kept as integers, in hundred-thousandths
DRAWN_AT_FIRST = 5  # domains whose curves are shown before anyone chooses
NAMED_DATASETS = 8  # in the first sentence


def write_report(folder: Path, output: Path | None = None) -> Path:
    """Write `report.html` for the run in a `dids/` folder, and give its path.

    Without an `output` it stands in the run's folder, and the pictures beside it. Raises DidsError where there is no
    log, or jinja2 or matplotlib is not installed.
    """
    run = load_run(folder)
    pictures = render(run)
    if output is None:
        save_pictures(pictures, folder)
        output = folder / "report.html"
    write_text(output, _environment().get_template("report.html").render(**_content(run, pictures)))
    return output


def write_comparison(folders: Sequence[Path], output: Path) -> tuple[Path, Comparison]:
    """Write a side-by-side comparison of several runs; its path, and what it says."""
    comparison = compare([load_run(folder) for folder in folders])
    write_text(output, _environment().get_template("compare.html").render(comparison=comparison, progress=PROGRESS))
    return output, comparison


def find_run(path: Path) -> Path:
    """The `dids/` folder of a run, given itself, the run's output folder or its log. DidsError where there is none."""
    return find_log(path).parent


def _environment() -> Any:
    try:
        from jinja2 import Environment, PackageLoader, StrictUndefined
    except ImportError:
        raise DidsError("jinja2 is not installed; `pip install jinja2` to write reports") from None
    environment = Environment(
        loader=PackageLoader("llamafactory_dids.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration}
    return environment


def _content(run: Run, pictures: Mapping[str, bytes]) -> dict[str, Any]:
    record = run.record
    chosen = movers(record.probabilities_UD, DRAWN_AT_FIRST)
    return {
        "run": run,
        "about": _about(run),
        "verdict": judge(run),
        "cost": cost.in_words(run),
        "costs": cost.table(run),
        "held_out": held_out(run),
        "pictures": {name: _data_uri(content) for name, content in pictures.items()},
        "rows": (rows := _rows(run)),
        "has_texts": any(row["texts"] for row in rows),
        "has_impact": mean_impact(run) is not None,
        "curves": {
            "samples": [int(record.samples_U[u]) for u in _thinned(len(record.samples_U))],
            "unit": CURVE_UNIT,
            "names": list(record.domain_names),
            "values": [_integers(record.probabilities_UD[:, i]) for i in range(len(record.domain_names))],
            "chosen": chosen,
            "colours": list(COLOURS),
        },
    }


def _about(run: Run) -> str:
    """What was trained on what, as far as `config.yaml` tells."""
    model, names = run.config.get("model_name_or_path"), run.config.get("dataset")
    if not model or not names:
        return ""
    names = names if isinstance(names, list) else [name.strip() for name in str(names).split(",")]
    more = f" and {len(names) - NAMED_DATASETS} more" if len(names) > NAMED_DATASETS else ""
    samples = sum(domain["size"] for domain in run.domains)
    counted = f"{samples:,} samples of " if samples else ""
    return f"{model} on {counted}{', '.join(names[:NAMED_DATASETS])}{more}"


def _data_uri(content: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(content).decode()


def _thinned(count: int) -> list[int]:
    """At most MAX_POINTS indices from the first to the last."""
    return sorted({round(float(i)) for i in np.linspace(0, count - 1, min(count, MAX_POINTS))})


def _integers(shares_U: Any) -> list[int]:
    return [round(float(shares_U[u]) * CURVE_UNIT) for u in _thinned(len(shares_U))]


def _rows(run: Run) -> list[dict[str, Any]]:
    """A row a domain of the table, the largest share at the end first; `index` is its place in the log."""
    record, impact_DT = run.record, mean_impact(run)
    start_D, end_D = record.probabilities_UD[0], record.probabilities_UD[-1]
    domains = run.domains or [{"size": None, "sources": {}, "typical_texts": []} for _ in record.domain_names]
    drawn = run.lines[-1].get("samples_drawn") or {}
    num_texts = sum(len(domain["typical_texts"]) for domain in domains)
    limit = max(40, min(1200, TEXT_BUDGET // max(1, num_texts)))
    told = record.task_names if impact_DT is not None and impact_DT.size <= MAX_NUMBERS else ()
    rows = []
    for i, (name, domain) in enumerate(zip(record.domain_names, domains, strict=True)):
        total = sum(domain["sources"].values())
        rows.append(
            {
                "index": i,
                "name": name,
                "size": domain["size"],
                "start": float(start_D[i]),
                "end": float(end_D[i]),
                "factor": float(end_D[i] / start_D[i]) if start_D[i] > 0 else None,
                "drawn": drawn.get(name),
                "impact": None if impact_DT is None else _impacts(impact_DT[i], told),
                "sources": [(source, count / total) for source, count in sorted(domain["sources"].items(), key=_rank)],
                "texts": [beginning(text, limit, size=_bytes_in_file) for text in domain["typical_texts"]],
            }
        )
    return sorted(rows, key=lambda row: -row["end"])


def _rank(item: tuple[str, int]) -> int:
    return -item[1]


def _impacts(impact_T: Any, tasks: Sequence[str]) -> dict[str, Any]:
    """The mean over all tasks, and each named task's in words."""
    seen = impact_T[np.isfinite(impact_T)]
    each = ", ".join(f"{task} {value:.2g}" for task, value in zip(tasks, impact_T, strict=False) if np.isfinite(value))
    return {"mean": float(seen.mean()) if len(seen) else None, "each": each}


def _bytes_in_file(letter: str) -> int:
    return len(escape(letter).encode())
