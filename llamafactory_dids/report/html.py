"""`report.html`: one file that explains a run, and opens without a network.

Texts of the data are arbitrary, so the templates escape everything. Pictures and tables are data URIs; style and script
are inline. With more than a thousand domains the file stays below 2 MB: curves are thinned, typical texts are cut to a
budget, and files too large for the page are only beside it.
"""

from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import Any

import numpy as np

from ..artifacts.files import write_text
from ..artifacts.mixture_log import find_log
from ..config import split_list
from ..text import beginning
from . import about, cost, page, tables
from .colours import domain_colours
from .compare_page import write_comparison
from .evaluation import evaluations
from .impact import decimals, measured_impact
from .outcomes import perplexity
from .pictures import Picture, render, save_pictures
from .run import Run, load_run
from .shares import data_shares, domain_shares, named_domains
from .verdict import judge, reference
from .words import in_language, t

__all__ = ["find_run", "write_comparison", "write_report"]

MAX_POINTS = 40  # points of a curve in the file
TEXT_BUDGET = 240_000  # bytes of all typical texts together
MANY_DOMAINS = 200  # from so many on, rows and curves leave little room for pictures and tables to save
MAX_NUMBERS = 2000  # most impacts that are also listed task by task
CURVE_UNIT = 100_000  # probabilities are integers, in hundred-thousandths
DRAWN_AT_FIRST = 6  # domains whose curves are shown before anyone chooses
NAMED_DATASETS = 8  # data sets named in the first sentence


def write_report(folder: Path, output: Path | None = None, lang: str = "en") -> Path:
    """Write `report.html` for the run in a `dids/` folder, and return its path.

    By default it is in the run's folder, with its pictures beside it and its tables in `tables/`. With an `output`,
    pictures and tables are in a folder `…_files` beside it. Raises DidsError without a log, or if there are no
    texts in `lang`.
    """
    run = load_run(folder)
    with in_language(lang):
        pictures, found = render(run), tables.of_run(run)
        beside = folder if output is None else page.files_beside(output)
        output = output or folder / "report.html"
        write_text(output, page.environment().get_template("report.html").render(**_content(run, pictures, found)))
        save_pictures(pictures, beside)
        tables.save_tables(found, beside / "tables")
    return output


def find_run(path: Path) -> Path:
    """The `dids/` folder of a run, from itself, the run's output folder or its log. Raises DidsError without a log."""
    return find_log(path).parent


def _content(run: Run, pictures: Mapping[str, Picture], found: Mapping[str, list[tables.Row]]) -> dict[str, Any]:
    rows = _rows(run)
    return {
        "run": run,
        "trained_on": _trained_on(run),
        "verdict": judge(run),
        "reference": reference(run),
        "cost": cost.in_words(run),
        "about": about.rows(run),
        "evaluations": evaluations(run),
        "perplexity": perplexity,
        "pictures": page.embedded(pictures),
        "exports": page.exports(pictures, found, page.EXPORT_BUDGET // (8 if len(rows) > MANY_DOMAINS else 1)),
        "rows": rows,
        "has_texts": any(row["texts"] for row in rows),
        "has_impact": any(row["impact"] for row in rows),
        "has_repeats": any(row["share"].repeats is not None for row in rows),
        "tells_losses": tables.tells_domain_losses(run),
        "curves": _curves(run),
    }


def _trained_on(run: Run) -> str:
    """The model and its training data in words, as far as `config.yaml` tells."""
    model, names = run.config.get("model_name_or_path"), split_list(run.config.get("dataset"))
    if not model or not names:
        return ""
    samples = sum(domain["size"] for domain in run.domains)
    listed = ", ".join(names[:NAMED_DATASETS])
    if len(names) > NAMED_DATASETS:
        listed = t("{names} and {count} more", names=listed, count=len(names) - NAMED_DATASETS)
    if not samples:
        return t("{model} on {names}", model=model, names=listed)
    return t("{model} on {samples} samples of {names}", model=model, samples=f"{samples:,}", names=listed)


def _curves(run: Run) -> dict[str, Any]:
    """Each domain's share at no more than MAX_POINTS lines of the log, from the first to the last, for the chart."""
    record = run.record
    count = len(record.samples_U)
    shown = np.unique(np.linspace(0, count - 1, min(count, MAX_POINTS)).round().astype(int))
    shares_DU = np.rint(CURVE_UNIT * record.probabilities_UD[shown].T)
    return {
        "samples": record.samples_U[shown].astype(int).tolist(),
        "unit": CURVE_UNIT,
        "names": list(record.domain_names),
        "values": shares_DU.astype(int).tolist(),
        "chosen": named_domains(data_shares(run), record.probabilities_UD, DRAWN_AT_FIRST),
        "colours": domain_colours(record.domain_names),
        "words": {key: t(key) for key in ("training samples seen", "after {samples} samples:", "{shown} of {total}")},
    }


def _rows(run: Run) -> list[dict[str, Any]]:
    """A row of the table for each domain, the largest final share first; `index` is the domain's index in the log."""
    shares = domain_shares(run)
    domains = run.domains or [{"sources": {}, "typical_texts": []} for _ in shares]
    impacts = _impact_words(run) or [None for _ in shares]
    num_texts = sum(len(domain["typical_texts"]) for domain in domains)
    limit = max(40, min(1200, TEXT_BUDGET // max(1, num_texts)))
    rows = []
    for i, (share, domain, losses, impact) in enumerate(
        zip(shares, domains, tables.domain_losses(run), impacts, strict=True)
    ):
        total = max(1, sum(domain["sources"].values()))
        sources = sorted(domain["sources"].items(), key=lambda item: -item[1])
        rows.append(
            {
                "index": i,
                "share": share,
                "losses": losses,
                "impact": impact,
                "sources": [(source, count / total) for source, count in sources],
                "texts": [beginning(text, limit, size=_bytes_in_file) for text in domain["typical_texts"]],
            }
        )
    return sorted(rows, key=lambda row: -row["share"].now)


def _impact_words(run: Run) -> list[dict[str, Any]]:
    """For each domain its `overall` impact as a number and in words, the task on which its impact is surest, and every
    task's impact unless there are too many; empty without any measurement.
    """
    impact = measured_impact(run)
    if impact is None:
        return []
    digits = decimals(float(np.nanmax(np.abs(impact.mean_DT))))

    def told(domain: int, task: int) -> str:
        error = impact.error_DT[domain, task]
        spread = f" ±{error:.{digits}f}" if np.isfinite(error) else ""
        return f"{run.record.task_names[task]} {impact.mean_DT[domain, task]:+.{digits}f}{spread}"

    found = []
    for i, overall in enumerate(impact.overall_D().tolist()):
        strongest = impact.strongest(i)
        seen = np.flatnonzero(np.isfinite(impact.mean_DT[i])) if impact.mean_DT.size <= MAX_NUMBERS else ()
        found.append(
            {
                "overall": overall if np.isfinite(overall) else None,
                "told": f"{overall:+.{digits}f}" if np.isfinite(overall) else "–",
                "strongest": "" if strongest is None else told(i, strongest),
                "each": ", ".join(told(i, j) for j in seen),
            }
        )
    return found


def _bytes_in_file(letter: str) -> int:
    return len(escape(letter).encode())
