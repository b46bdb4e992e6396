"""A run's folder as the page shows it: live pictures, the report, and the domains.

The page looks at the folder that its output directory names, whether that is running, has just ended or did so long
ago; what has not changed since the last look is not drawn again.
"""

import html
import os
from pathlib import Path
from typing import Any

from llamafactory.webui.common import get_save_dir

from ...artifacts.domain_map import DomainMap, load_map, texts_are_random
from ...artifacts.mixture_log import MixtureLog, MixtureRecord, find_log
from ...errors import DidsError
from ..errors import one_line
from . import figures
from .texts import say

# The components that `look` gives something to, in this order.
SHOWN = ("dids_probabilities", "dids_losses", "dids_report_tab", "dids_report", "dids_map", "dids_table")
LOG, REPORT, MAP = "mixture.jsonl", "report.html", "domains.json"
LONGEST_TEXT = 600  # characters of a typical sample
OPEN_REPORT = (
    "const page = this.closest('.dids-report').querySelector('iframe').srcdoc;"
    "window.open(window.URL.createObjectURL(new Blob([page], {type: 'text/html'}))); return false"
)


def look(lang: str, model_name: str, finetuning_type: str, output_dir: str, seen: Any) -> list[Any]:
    """(what was seen, an update for each of SHOWN): nothing to do where it is what was seen before."""
    import gradio as gr

    folder = Path(get_save_dir(model_name, finetuning_type, output_dir)) / "dids" if model_name and output_dir else None
    now = (lang, str(folder), *(_stamp(folder, name) for name in (LOG, REPORT, MAP)))
    if now == seen or (seen is None and not any(now[2:])):
        return [gr.skip()] * (1 + len(SHOWN))
    record = _record(folder) if folder else None
    return [now, *_pictures(record), *_report(folder, lang), *_domains(folder, lang)]


def _stamp(folder: Path | None, name: str) -> tuple[int, int] | None:
    try:
        found = os.stat(folder / name) if folder else None
    except OSError:
        return None
    return (found.st_mtime_ns, found.st_size) if found else None


def _record(folder: Path) -> MixtureRecord | None:
    """The log so far; None where there is none, or its first line is being written."""
    try:
        return MixtureLog(folder / LOG).record()
    except DidsError:
        return None


def _pictures(record: MixtureRecord | None) -> list[Any]:
    import gradio as gr

    drawn = [figures.probabilities_figure(record), figures.losses_figure(record)] if record else [None, None]
    return [gr.update(value=figure, visible=figure is not None) for figure in drawn]


def _report(folder: Path | None, lang: str) -> list[Any]:
    """The accordion's update, and the report in a frame of its own, where it can do no more than be looked at."""
    import gradio as gr

    path = folder / REPORT if folder else None
    if path is None or not path.is_file():
        return [gr.update(visible=False), ""]
    page = html.escape(path.read_text(encoding="utf-8"))
    link = f'<a href="#" onclick="{html.escape(OPEN_REPORT)}">{html.escape(say("open_report", lang))}</a>'
    frame = f'<iframe sandbox="allow-scripts" srcdoc="{page}" style="width: 100%; height: 70vh; border: 0"></iframe>'
    where = f"<code>{html.escape(str(path))}</code>"
    return [gr.update(visible=True), f'<div class="dids-report"><p>{link} · {where}</p>{frame}</div>']


def _domains(folder: Path | None, lang: str) -> list[Any]:
    if folder is None or not (folder / MAP).is_file():
        return ["", ""]
    return [str(folder), show_domains(lang, str(folder))]


def show_domains(lang: str, path: str) -> str:
    """The domains of a map or a run as a table; what is wrong with the path, in a line, where it is neither."""
    folder = Path(path.strip()).expanduser()
    try:
        if not path.strip():
            raise DidsError("path: got '', allowed: the folder of a run or of a domain map")
        domain_map = load_map(folder / "dids" if (folder / "dids").is_dir() else folder)
        record = _record_of(folder)
    except DidsError as error:
        _warn(one_line(error))
        return f"<p>{html.escape(one_line(error))}</p>"
    return _table(domain_map, record, lang)


def _record_of(folder: Path) -> MixtureRecord | None:
    try:
        return MixtureLog(find_log(folder)).record()
    except DidsError:
        return None  # a map that no run was made with


def _warn(message: str) -> None:
    import gradio as gr

    gr.Warning(message)


def _table(domain_map: DomainMap, record: MixtureRecord | None, lang: str) -> str:
    start, now = {}, {}
    if record is not None:
        start = dict(zip(record.domain_names, record.probabilities_UD[0].tolist(), strict=True))
        now = dict(zip(record.domain_names, record.probabilities_UD[-1].tolist(), strict=True))
    domains = domain_map.describe()
    domains.sort(key=lambda domain: -now.get(domain["name"], 0.0))
    texts = "random" if texts_are_random(domain_map.inputs) else "typical"
    columns = ("domain", "samples", "sources", "probability", "change", texts)
    head = "".join(f"<th>{html.escape(say(column, lang))}</th>" for column in columns)
    rows = "".join(
        "<tr>" + "".join(f"<td>{cell}</td>" for cell in _cells(domain, now, start)) + "</tr>" for domain in domains
    )
    table = f'<table class="dids-domains"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'
    return f'<div style="max-height: 70vh; overflow: auto">{table}</div>'  # there may be a thousand


def _cells(domain: dict[str, Any], now: dict[str, float], start: dict[str, float]) -> list[str]:
    name, size = domain["name"], domain["size"]
    counts = sorted(domain["sources"].items(), key=lambda item: -item[1])
    sources = ", ".join(f"{source} {100 * count / size:.0f}%" for source, count in counts)
    has_both = start.get(name, 0.0) > 0 and name in now
    return [
        f"<b>{html.escape(name)}</b>",
        f"{size:,}",
        html.escape(sources),
        f"{100 * now[name]:.2f}%" if name in now else "–",
        f"×{now[name] / start[name]:.2f}" if has_both else "–",
        _samples(domain["typical_texts"]),
    ]


def _samples(texts: list[str]) -> str:
    """The first line of the first sample, which unfolds to all of them."""
    if not texts:
        return "–"
    first = html.escape(" ".join(texts[0].split())[:80])
    blocks = "".join(f"<pre style='white-space: pre-wrap'>{html.escape(text[:LONGEST_TEXT])}</pre>" for text in texts)
    return f"<details><summary>{first}…</summary>{blocks}</details>"
