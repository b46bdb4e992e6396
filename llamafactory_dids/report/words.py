"""The language of a report: each text is written in English where it is used, and looked up by that.

`in_language` is of the thread that calls it, as the web page draws for several people at once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from ..errors import refuse
from .zh import ZH

LANGUAGES: dict[str, dict[str, str]] = {"en": {}, "zh": ZH}
_language: ContextVar[str] = ContextVar("language", default="en")


def t(text: str, /, **values: object) -> str:
    """The text in the language of now; with its `{names}` filled in, where values are given."""
    told = LANGUAGES[_language.get()].get(text, text)
    return told.format(**values) if values else told


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
