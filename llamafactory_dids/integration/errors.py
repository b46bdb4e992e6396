"""Errors that a user is meant to read are one line; everything else keeps its stack trace."""

import difflib
import os
import sys
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from ..errors import DidsError

DEBUG = "LLAMAFACTORY_DIDS_DEBUG"


def install_hook() -> None:
    """Let a DidsError that ends the program show as one line, unless LLAMAFACTORY_DIDS_DEBUG=1."""
    previous = sys.excepthook

    def hook(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> Any:
        if isinstance(error, DidsError) and os.environ.get(DEBUG) != "1":
            print(f"error: {one_line(error)}", file=sys.stderr)
        else:
            previous(kind, error, trace)

    sys.excepthook = hook


def nearest(name: str, allowed: Sequence[str]) -> str:
    """`, did you mean …?` with what is most like the name, to stand behind what is allowed; nothing where none is."""
    close = difflib.get_close_matches(name, allowed, n=1)
    return f", did you mean {close[0]}?" if close else ""


def one_line(error: BaseException) -> str:
    """An error's message without line breaks; of one that Ray brings from a worker, the message that it had there."""
    error = getattr(error, "cause", None) or error
    return " ".join(str(error).split()) or type(error).__name__
