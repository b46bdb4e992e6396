"""Explanations without the host's output while it loads, which is meant for a training."""

import contextlib
import io
import json
import logging
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from logging.handlers import BufferingHandler
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import DEBUG, one_line

if TYPE_CHECKING:
    from .explain import Explanation

VERBOSITY = "LLAMAFACTORY_VERBOSITY"


def answer(questions: TextIO, answers: TextIO) -> None:
    """Explain many runs in one process: a line holds {"arguments": the values of a YAML file, "processes": N}. An
    answer is a line of `explain --json`, or {"error": the line}.
    """
    for line in questions:
        try:
            asked = json.loads(line)
            found = explained(asked.get("processes"), asked["arguments"]).as_dict()
        except Exception as error:  # any fault of one question must not stop the next
            found = {"error": one_line(error)}
        print(json.dumps(found, ensure_ascii=False), file=answers, flush=True)


def explained(processes: int | None = None, arguments: dict[str, Any] | None = None) -> "Explanation":
    """The explanation of these arguments, or of the YAML file in `sys.argv`. Warnings of the checks are among its
    notes.

    Raises DidsError as `explain` does.
    """
    with _silence() as notes:
        import llamafactory.train.tuner  # noqa: F401  the host's modules before ours, as in a training
        from llamafactory.extras.misc import get_device_count
        from llamafactory.hparams import read_args

        from ..arguments.checks import BOTH
        from ..host.quiet import quiet
        from .explain import explain

        arguments = dict(read_args(arguments))
        if get_device_count() == 0:  # a laptop without a GPU for bf16 can explain a run for a cluster
            arguments["use_cpu"] = True
        with quiet():
            found = explain(arguments, processes)
        texts = tuple(record.getMessage() for record in notes if record.msg != BOTH)  # the cautions name these tasks
        return replace(found, notes=tuple(dict.fromkeys(texts)))


@contextmanager
def _silence() -> Iterator[list[logging.LogRecord]]:
    """Nothing is printed or logged inside this context. Our warnings are added to the list."""
    handler = BufferingHandler(capacity=sys.maxsize)
    if os.environ.get(DEBUG) == "1":
        yield handler.buffer
        return
    ours, host = logging.getLogger("llamafactory_dids"), logging.getLogger("llamafactory")
    before, level = os.environ.get(VERBOSITY), host.level
    os.environ[VERBOSITY] = "ERROR"  # for loggers that are set up on import
    nowhere = io.StringIO()  # never closed: modules imported meanwhile may keep it
    ours.addHandler(handler)
    ours.setLevel(logging.WARNING)
    ours.propagate = False
    host.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield handler.buffer
    finally:
        ours.removeHandler(handler)
        ours.setLevel(logging.NOTSET)
        ours.propagate = True
        host.setLevel(level)
        if before is None:
            del os.environ[VERBOSITY]
        else:
            os.environ[VERBOSITY] = before
