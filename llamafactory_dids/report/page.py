"""The common parts of the pages of a run and of a comparison: escaping templates, pictures and tables as data URIs."""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache, partial
from html import escape
from pathlib import Path
from typing import Any

from . import tables
from .pictures import Picture
from .words import duration, language, number, percent, t, times

EXPORT_BUDGET = 480_000  # bytes of all pictures and tables to save from the page


@cache
def environment() -> Any:
    """The templates, compiled once a process."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("llamafactory_dids.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "duration": duration, "times": times, "number": number}
    environment.filters["breakable"] = _breakable
    environment.globals |= {"t": t, "language": language, "code": partial(_code, environment), "policy": policy}
    return environment


def _code(environment: Any, *names: str) -> Any:
    """Scripts of ours in one, as a page has it."""
    from markupsafe import Markup

    return Markup("\n".join(environment.loader.get_source(environment, name)[0] for name in names))


def policy(code: str) -> str:
    """What a page may do: run this one script and show what is in it; it requests nothing, and is framed by who may."""
    digest = base64.b64encode(hashlib.sha256(code.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _breakable(name: str) -> Any:
    """A name that may break after slashes, underscores and hyphens only."""
    from markupsafe import Markup

    safe = str(escape(name))
    for mark in "/_-":
        safe = safe.replace(mark, f"{mark}<wbr>")
    return Markup(safe)


def embedded(pictures: Mapping[str, Picture]) -> dict[str, str]:
    """The pictures as data URIs, by name."""
    return {name: _data_uri(picture.png, "image/png") for name, picture in pictures.items()}


def exports(
    pictures: Mapping[str, Picture], found: Mapping[str, Sequence[Mapping[str, Any]]], left: int = EXPORT_BUDGET
) -> dict[str, str]:
    """The files to save from the page: data URIs by file name, as many as fit the budget."""
    files = {f"{name}.csv": (tables.as_csv(rows), "text/csv") for name, rows in found.items() if rows}
    files |= {f"{name}.svg": (picture.svg, "image/svg+xml") for name, picture in pictures.items()}
    kept = {}
    for name, (content, kind) in files.items():
        if len(content) <= left:
            left -= len(content)
            kept[name] = _data_uri(content, kind)
    return kept


def _data_uri(content: bytes, kind: str) -> str:
    return f"data:{kind};base64," + base64.b64encode(content).decode()


def files_beside(output: Path) -> Path:
    """The folder for the files of a page outside a run's folder."""
    return output.with_name(f"{output.stem}_files")
