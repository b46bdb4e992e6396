"""`comparison.html`: several runs side by side, on one page."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from ..artifacts.files import write_text
from . import page, tables
from .compare import Comparison, compare
from .compare_pictures import render_comparison
from .compare_words import interval, told
from .pictures import save_pictures
from .run import load_run
from .words import in_language, t


def write_comparison(folders: Sequence[Path], output: Path, lang: str = "en") -> tuple[Path, Comparison]:
    """Write a side-by-side comparison of several runs, with its pictures and tables in `…_files` beside it.

    Returns its path and the comparison. Raises DidsError as `write_report` does, and for runs with nothing in common.
    """
    with in_language(lang):
        comparison = told(compare([load_run(folder) for folder in folders]))
        pictures = render_comparison(comparison)
        found = comparison.tables()
        content = {
            "comparison": comparison,
            "pictures": page.embedded(pictures),
            "exports": page.exports(pictures, found),
            "links": _links(comparison, output),
            "tables": _loss_tables(comparison),
            "interval": interval,
        }
        write_text(output, page.environment().get_template("compare.html").render(**content))
        save_pictures(pictures, page.files_beside(output))
        tables.save_tables(found, page.files_beside(output))
    return output, comparison


def _links(comparison: Comparison, output: Path) -> dict[str, str]:
    """The path of each run's own report, relative to the comparison's folder, if the report exists."""
    here, found = output.resolve().parent, {}
    for summary, run in zip(comparison.summaries, comparison.runs, strict=True):
        report = run.folder.resolve() / "report.html"
        if report.exists():
            found[summary.label] = quote(Path(os.path.relpath(report, here)).as_posix())
    return found


def _loss_tables(comparison: Comparison) -> list[tuple[str, str, list[Any]]]:
    """(title, note, rows) of the losses. A row is a name and the result of `Comparison.line`; the mean comes first."""
    found = []
    for field, title, note in (
        ("held_out", "Loss on held-out data", "As LLaMA-Factory evaluated them after the training (all_results.json)."),
        (
            "losses",
            "Last loss of each observed task",
            "On the observed samples, as last measured while each run trained.",
        ),
    ):
        rows = [(name, *comparison.line(field, [name])) for name in comparison.tasks[field]]
        if len(common := comparison.common(field)) > 1:
            rows.insert(0, (t("mean"), *comparison.line(field, common)))
        if rows:
            found.append((t(title), t(note), rows))
    return found
