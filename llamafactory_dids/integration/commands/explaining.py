"""Asks for an explanation in silence: what the host says while it loads is for a training."""

import contextlib
import io
import json
import logging
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TextIO

from ..errors import DEBUG, one_line

if TYPE_CHECKING:
    from .explain import Explanation

VERBOSITY = "LLAMAFACTORY_VERBOSITY"


def answer(questions: TextIO, answers: TextIO) -> None:
    """Explain many runs in one process: a JSON object a line, {"arguments": the values of a YAML file, "processes": N};
    the answers as `explain --json` gives them, or {"error": the line}."""
    for line in questions:
        try:
            asked = json.loads(line)
            found = explained(asked.get("processes"), asked["arguments"]).as_dict()
        except Exception as error:  # whatever is wrong with one question, the next may be answered
            found = {"error": one_line(error)}
        print(json.dumps(found, ensure_ascii=False), file=answers, flush=True)


def explained(processes: int | None = None, arguments: dict[str, Any] | None = None) -> "Explanation":
    """What these arguments, or the YAML file in `sys.argv`, would do. What the checks warn of is among its notes.

    Raises DidsError as `explain` does.
    """
    with _silence() as notes:
        import llamafactory.train.tuner  # noqa: F401  as in a training: the host's modules, then ours
        from llamafactory.extras.misc import get_device_count
        from llamafactory.hparams import read_args

        from ..arguments.checks import BOTH
        from ..host.quiet import quiet
        from .explain import explain

        arguments = dict(read_args(arguments))
        if get_device_count() == 0:  # a run for a cluster is explained on a laptop too, which has no GPU for its bf16
            arguments["use_cpu"] = True
        with quiet():
            found = explain(arguments, processes)
        texts = tuple(record.getMessage() for record in notes if record.msg != BOTH)  # that is told of each task
        return replace(found, notes=tuple(dict.fromkeys(texts)))


@contextmanager
def _silence() -> Iterator[list[logging.LogRecord]]:
    """Nothing is printed or logged within; our warnings are kept in the list."""
    kept: list[logging.LogRecord] = []
    if os.environ.get(DEBUG) == "1":
        yield kept
        return
    handler, ours, host = _Keeping(kept), logging.getLogger("llamafactory_dids"), logging.getLogger("llamafactory")
    before, level = os.environ.get(VERBOSITY), host.level
    os.environ[VERBOSITY] = "ERROR"  # of loggers that are set up when they are imported
    nowhere = io.StringIO()  # never closed: what is imported within may keep it
    ours.addHandler(handler)
    ours.setLevel(logging.WARNING)
    ours.propagate = False
    host.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield kept
    finally:
        ours.removeHandler(handler)
        ours.setLevel(logging.NOTSET)
        ours.propagate = True
        host.setLevel(level)
        if before is None:
            del os.environ[VERBOSITY]
        else:
            os.environ[VERBOSITY] = before


class _Keeping(logging.Handler):
    def __init__(self, kept: list[logging.LogRecord]) -> None:
        super().__init__(logging.WARNING)
        self.kept = kept

    def emit(self, record: logging.LogRecord) -> None:
        self.kept.append(record)
