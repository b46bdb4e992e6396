"""The domains of a map or a run as a table. A domain has two rows: its figures, and a sample that unfolds."""

import html
import json
from pathlib import Path
from typing import Any

from ...artifacts.domain_map import DomainMap, is_map, load_map, texts_are_random
from ...artifacts.mixture_log import MixtureLog, find_log
from ...errors import DidsError
from ..errors import one_line
from .messages import in_words, warn
from .texts import say

LONGEST_TEXT = 600  # characters of a sample

COLUMNS = ("domain", "samples", "sources", "of_data", "probability", "times")


def show_domains(lang: str, path: str | None) -> str:
    """The table; or a line that says what is wrong, if the path belongs to neither a map nor a run."""
    path = (path or "").strip()
    try:
        folder = Path(path).expanduser()
        if not path or not folder.exists():
            raise DidsError(say("no_folder", lang).format(name=path))
        place = folder / "dids" if (folder / "dids").is_dir() else folder
        if not is_map(place):
            raise DidsError(say("no_run", lang).format(name=path))
        domain_map = load_map(place)
    except (DidsError, OSError, RuntimeError) as error:  # RuntimeError: `~name` of nobody
        warn(said := in_words(one_line(error), lang))
        return f"<p>{html.escape(said)}</p>"
    return _table(domain_map, _shares(folder), lang, str(folder))


def shares_cells(folder: str) -> str:
    """The cells that an update changes, by domain, as JSON for `style.WRITE_SHARES`; empty without a map."""
    try:
        domain_map = load_map(Path(folder))
    except DidsError:
        return ""
    now, total = _shares(Path(folder)), len(domain_map.keys_N)
    cells = {domain["name"]: _share_cells(domain, now, total) for domain in domain_map.describe()}
    return json.dumps({"run": folder, "cells": cells})


def _shares(folder: Path) -> dict[str, float]:
    """Each domain's present share; empty if the map belongs to no run."""
    try:
        return MixtureLog(find_log(folder)).record().last()
    except DidsError:
        return {}


def _table(domain_map: DomainMap, now: dict[str, float], lang: str, folder: str) -> str:
    domains = domain_map.describe()
    domains.sort(key=lambda domain: (-now.get(domain["name"], 0.0), -domain["size"]))
    random = texts_are_random(domain_map.inputs)
    head = "".join(f"<th>{html.escape(say(column, lang))}</th>" for column in COLUMNS)
    total, label = len(domain_map.keys_N), say("random" if random else "typical", lang)
    rows = "".join(_rows(domain, now, total, label) for domain in domains)
    table = (
        f'<table class="dids-domains" data-run="{html.escape(folder)}"><thead><tr>{head}</tr></thead>'
        f"<tbody>{rows}</tbody></table>"
    )
    return f'<div style="max-height: 70vh; overflow: auto">{table}</div>'  # there may be a thousand rows


def _rows(domain: dict[str, Any], now: dict[str, float], total: int, label: str) -> str:
    name, size = html.escape(domain["name"]), domain["size"]
    counts = sorted(domain["sources"].items(), key=lambda item: -item[1])
    sources = html.escape(", ".join(f"{source} {100 * count / size:.0f}%" for source, count in counts))
    share, times = _share_cells(domain, now, total)
    figures = (
        f'<td><b>{name}</b></td><td>{size:,}</td><td class="text">{sources}</td><td>{size / total:.2%}</td>'
        f'<td class="now">{share}</td><td class="times">{times}</td>'
    )
    text = f'<td class="text" colspan="{len(COLUMNS)}">{_samples(domain["typical_texts"], label)}</td>'
    return f'<tr class="first" data-domain="{name}">{figures}</tr><tr>{text}</tr>'


def _share_cells(domain: dict[str, Any], now: dict[str, float], total: int) -> tuple[str, str]:
    """The present share, and its ratio to the domain's share of the data, as texts."""
    share = now.get(domain["name"])
    if share is None:
        return "–", "–"
    return f"{share:.2%}", f"×{share * total / domain['size']:.2f}" if domain["size"] else "–"


def _samples(texts: list[str], label: str) -> str:
    """The first line of the first sample, which unfolds to all samples."""
    if not texts:
        return "–"
    first = html.escape(" ".join(texts[0].split())[:110])
    blocks = "".join(f"<pre style='white-space: pre-wrap'>{html.escape(text[:LONGEST_TEXT])}</pre>" for text in texts)
    label = html.escape(label)
    return f"<details><summary title='{label}'>{first}…</summary><p><i>{label}</i></p>{blocks}</details>"
