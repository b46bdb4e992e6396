"""A run's folder as the page shows it: live pictures, the report with its files, and the domains.

A timer notes the files in the page's output folder, and changes nothing on display. Only what changed since is drawn
again. A person's entries and unfolded rows stay: the path of the domains is filled in only if it is empty or the
previous run's, and an update writes its shares into the existing table.
"""

import functools
import html
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from llamafactory.webui.common import get_save_dir

from ...artifacts.mixture_log import MixtureLog, MixtureRecord
from ...errors import DidsError
from ..errors import one_line
from . import figures, style
from .domains_table import shares_cells, show_domains
from .framing import framed
from .messages import in_words
from .texts import say
from .translated import REPORT, pictures_of, report_in

# The components that `show` updates, in this order.
SHOWN = (
    *("dids_probabilities", "dids_losses", "dids_report_tab", "dids_report", "dids_files"),
    *("dids_domains_tab", "dids_map", "dids_table", "dids_shares"),
)
LOG, MAP = "mixture.jsonl", "domains.json"
FILES = (LOG, "domains.parquet", MAP, "config.yaml", "cost.json")  # to download, if they exist


class Seen(NamedTuple):
    """The files in a run's folder, by their stamps."""

    lang: str
    folder: str
    log: Any = None
    report: Any = None
    map: Any = None

    @property
    def is_empty(self) -> bool:
        return not (self.log or self.report or self.map)


NOTHING = Seen("", "")
_save_dir = functools.cache(get_save_dir)  # it logs a warning for each path, and the page looks every two seconds


def look(lang: str, model_name: str, finetuning_type: str, output_dir: str) -> Seen:
    """The files in the folder that the page's fields name."""
    named = bool(model_name and output_dir)
    folder = Path(_save_dir(model_name, finetuning_type, output_dir)) / "dids" if named else None
    return Seen(lang, str(folder or ""), *(_stamp(folder, name) for name in (LOG, REPORT, MAP)))


def _stamp(folder: Path | None, name: str) -> tuple[int, int] | None:
    if folder is None or not _is_in(folder, folder / name):
        return None
    found = os.stat(folder / name)
    return found.st_mtime_ns, found.st_size


def _is_in(folder: Path, path: Path) -> bool:
    """Whether a file is there and in the run's folder: no link that leads out of it."""
    return path.is_file() and path.resolve().is_relative_to(folder.resolve())


def show(seen: Any, shown: Any, path: str | None) -> list[Any]:
    """(what is shown now, an update for each of SHOWN). Unchanged components are skipped.

    `path` is for the domains; None from a page that has not drawn the field yet.
    """
    import gradio as gr

    now, before = Seen(*seen), Seen(*shown)
    if now == before or (now.is_empty and before.is_empty):
        return [tuple(now), *[gr.skip()] * len(SHOWN)]
    elsewhere = (now.lang, now.folder) != (before.lang, before.folder)
    updates = [gr.skip()] * len(SHOWN)
    if elsewhere or now.log != before.log:
        updates[:2] = _pictures(_record(now), now.lang)
    if elsewhere or now.report != before.report:
        updates[2:5] = _report(now)
    follows = (path or "").strip() in ("", before.folder)  # nobody typed another path
    if (elsewhere or now.map != before.map) and follows:
        updates[5:8] = _domains(now)
    elif now.log != before.log and now.map:
        updates[8] = shares_cells(now.folder)
    return [tuple(now), *updates]


def _record(seen: Seen) -> MixtureRecord | None:
    """The log so far; None if there is none, or its first line is unfinished."""
    try:
        return MixtureLog(Path(seen.folder) / LOG).record() if seen.log else None
    except DidsError:
        return None


def _pictures(record: MixtureRecord | None, lang: str) -> list[Any]:
    import gradio as gr

    drawn = ["", ""]
    if record is not None:
        drawn = [figures.probabilities_picture(record, lang), figures.losses_picture(record, lang)]
    names = (say("probabilities_title", lang), say("losses_title", lang))
    framed_ones = [
        f'<div class="dids-picture" title="{html.escape(say("enlarge", lang))}" onclick="{html.escape(style.ENLARGE)}">'
        f"<h4>{html.escape(name)}</h4>{svg}</div>"
        for name, svg in zip(names, drawn, strict=True)
    ]
    return [gr.update(value=text, visible=bool(svg)) for text, svg in zip(framed_ones, drawn, strict=True)]


def _report(seen: Seen) -> list[Any]:
    """The accordion's update, the report in the page's language, and the files to download."""
    import gradio as gr

    if not seen.report:
        return [gr.update(visible=False), "", gr.update(value=None)]
    folder = Path(seen.folder)
    try:
        report = report_in(folder, seen.lang)
        shown = framed(report, seen.lang)
    except (DidsError, OSError) as error:
        report, shown = folder / REPORT, f"<p>{html.escape(in_words(one_line(error), seen.lang))}</p>"
    return [gr.update(visible=True), shown, gr.update(value=_copies(folder, report))]


def _copies(folder: Path, report: Path) -> list[str]:
    """The files of a run, in a place that the page may serve: as they are, or copied to a temporary folder."""
    named = [report, *(folder / name for name in FILES), *pictures_of(report)]
    found = [path for path in named if _is_in(folder, path)]
    if folder.resolve().is_relative_to(Path.cwd()) or folder.resolve().is_relative_to(tempfile.gettempdir()):
        return [str(path) for path in found]
    place = Path(tempfile.mkdtemp(prefix="dids-"))
    return [str(shutil.copy(path, place)) for path in found]


def _domains(seen: Seen) -> list[Any]:
    import gradio as gr

    if not seen.map:
        return [gr.skip(), "", ""]
    return [gr.update(visible=True), seen.folder, show_domains(seen.lang, seen.folder)]
