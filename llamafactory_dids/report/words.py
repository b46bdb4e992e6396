"""The language of a report: each text is written in English where it is used, and looked up by that in a table.

The tables are `templates/LANGUAGE.json`. `in_language` is of the thread that calls it, as the web page draws for
several people at once.
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
    """The text in the language of now; with its `{names}` filled in, where values are given."""
    told = _table(_language.get()).get(text, text)
    return told.format(**values) if values else told


@functools.cache
def _table(code: str) -> dict[str, str]:
    """The texts of a language by the English ones; English has none."""
    if code == "en":
        return {}
    path = files("llamafactory_dids.report") / "templates" / f"{code}.json"
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def language() -> str:
    """The code of the language of now."""
    return _language.get()


@contextmanager
def in_language(code: str) -> Iterator[None]:
    """Write in this language within. Raises DidsError for one that there is no table of."""
    if code not in LANGUAGES:
        raise refuse("--lang", code, ", ".join(LANGUAGES))
    token = _language.set(code)
    try:
        yield
    finally:
        _language.reset(token)


def percent(share: float) -> str:
    """A share, with about two digits that count."""
    value = 100 * share
    return f"{value:.0f}%" if value >= 99.5 else f"{value:.1f}%" if value >= 1 else f"{value:.2g}%"


def times(ratio: float | None) -> str:
    """How many times as much, or as little; nothing is told where there was none before."""
    if ratio is None:
        return "–"
    if ratio <= 0:
        return "×0"
    return f"×{ratio:.3g}" if ratio >= 1 or f"{ratio:.2g}" == "1" else f"÷{1 / ratio:.3g}"


def counted(number: int, what: str) -> str:
    """A number and a noun, in English the plural where it is not one."""
    plural = "" if number == 1 or _language.get() != "en" else "s"
    return f"{number:,} {t(what)}{plural}"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"
