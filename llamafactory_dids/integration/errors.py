"""One-line errors for the user. Any other error keeps its stack trace."""

import difflib
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from .. import text
from ..errors import DidsError

DEBUG = "LLAMAFACTORY_DIDS_DEBUG"


def install_hook() -> None:
    """Show a DidsError that ends the program as one line, unless LLAMAFACTORY_DIDS_DEBUG=1."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        if isinstance(error, DidsError) and os.environ.get(DEBUG) != "1":
            print(f"error: {one_line(error)}", file=sys.stderr)
        else:
            previous(kind, error, trace)

    sys.excepthook = hook


@contextmanager
def refusals() -> Iterator[None]:
    """What LLaMA-Factory, and the libraries below it, say against the arguments of a run, as one line."""
    try:
        yield
    except DidsError:
        raise
    except Exception as error:  # theirs are ValueErrors, assertions, TypeErrors, missing packages and more
        raise DidsError(f"LLaMA-Factory refuses these arguments: {one_line(error)}") from error


def nearest(name: str, allowed: Sequence[str]) -> str:
    """`, did you mean …?` with the allowed name most like `name`, to append to a message; empty if none is close."""
    close = difflib.get_close_matches(name, allowed, n=1)
    return f", did you mean {close[0]}?" if close else ""


def one_line(error: BaseException) -> str:
    """An error's message without line breaks. For an error that Ray brings from a worker, the worker's message."""
    error = getattr(error, "cause", None) or error
    return text.one_line(str(error)) or type(error).__name__
