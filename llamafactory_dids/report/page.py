"""What the pages of a run and of a comparison share: templates that escape, pictures and tables as data URIs."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..errors import DidsError
from . import tables
from .pictures import Picture
from .words import duration, language, percent, t, times

EXPORT_BUDGET = 480_000  # bytes of pictures and tables that can be saved from the page, in all


def environment() -> Any:
    """The templates. Raises DidsError where jinja2 is not installed."""
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
    environment.filters |= {"percent": percent, "duration": duration, "times": times, "breakable": _breakable}
    environment.globals |= {"t": t, "language": language}
    return environment


def _breakable(name: str) -> Any:
    """A name that breaks behind its slashes, underscores and hyphens, and nowhere else."""
    from markupsafe import Markup

    safe = str(escape(name))
    for mark in "/_-":
        safe = safe.replace(mark, f"{mark}<wbr>")
    return Markup(safe)


def embedded(pictures: Mapping[str, Picture]) -> dict[str, str]:
    """The pictures as data URIs, by their names."""
    return {name: _data_uri(picture.png, "image/png") for name, picture in pictures.items()}


def exports(
    pictures: Mapping[str, Picture], found: Mapping[str, Sequence[Mapping[str, Any]]], left: int = EXPORT_BUDGET
) -> dict[str, str]:
    """What can be saved from the page itself: data URIs by file names, as many as their budget has room for."""
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
    """The folder of what belongs to a page that stands elsewhere than in a run."""
    return output.with_name(f"{output.stem}_files")
