"""The language of a report. Each text is written in English where it is used, and translated by a table.

The tables are `templates/LANGUAGE.json`. `in_language` applies to the thread that calls it, because the web page draws
for several people at once.
"""

import functools
import json
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.resources import files

from ..errors import refuse

LANGUAGES = ("en", "zh")
_language: ContextVar[str] = ContextVar("language", default="en")


def t(text: str, /, **values: object) -> str:
    """The text in the current language, with its `{names}` filled in if values are given."""
    told = _table(_language.get()).get(text, text)
    return told.format(**values) if values else told


@functools.cache
def _table(code: str) -> dict[str, str]:
    """The texts of a language by their English originals; empty for English."""
    if code == "en":
        return {}
    path = files("llamafactory_dids.report") / "templates" / f"{code}.json"
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def language() -> str:
    """The code of the current language."""
    return _language.get()


@contextmanager
def in_language(code: str) -> Iterator[None]:
    """Write in this language inside the context. Raises DidsError for a language without a table."""
    if code not in LANGUAGES:
        raise refuse("--lang", code, ", ".join(LANGUAGES))
    token = _language.set(code)
    try:
        yield
    finally:
        _language.reset(token)


def percent(share: float) -> str:
    """A share in percent, with about two significant digits."""
    value = 100 * share
    return f"{value:.0f}%" if value >= 99.5 else f"{value:.1f}%" if value >= 1 else f"{value:.2g}%"


def number(value: float) -> str:
    """About three significant digits, and never a power of ten for a large number."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def times(ratio: float | None) -> str:
    """A ratio as `×` or `÷` a number; a dash if there was nothing before."""
    if ratio is None:
        return "–"
    if ratio <= 0:
        return "×0"
    return f"×{number(ratio)}" if ratio >= 1 or f"{ratio:.2g}" == "1" else f"÷{number(1 / ratio)}"


def counted(number: int, what: str) -> str:
    """A number and a noun, which takes an s in English unless the number is one."""
    plural = "" if number == 1 or _language.get() != "en" else "s"
    return f"{number:,} {t(what)}{plural}"


def duration(seconds: float) -> str:
    """Seconds in a readable unit."""
    if seconds < 120:
        return f"{number(seconds)} s"
    if seconds < 7200:
        return f"{number(seconds / 60)} min"
    return f"{number(seconds / 3600)} h"
