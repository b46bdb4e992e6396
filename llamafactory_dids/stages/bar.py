"""How far a long stage is: a bar on a terminal; elsewhere lines of the log, which the web page reads back.

with progress("gradients", total=270, unit="tokens") as advance:
    advance(8, tokens)
"""

import logging
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import NamedTuple

from tqdm import tqdm

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0
_LINE = re.compile(r">> (.+?): (\d+) of (\d+) samples, (\S+) < ([^\s,]+)")


class BarLine(NamedTuple):
    """What a line says: samples done and in all, time spent and left as h:mm:ss."""

    name: str
    done: int
    total: int
    elapsed: str
    remaining: str

    def __str__(self) -> str:
        return f"{self.name}: {self.done} of {self.total} samples, {self.elapsed} < {self.remaining}"


def last_progress(log: str) -> BarLine | None:
    """The newest line of progress in a log whose lines end in `>> message`; None where there is none."""
    found = _LINE.findall(log)
    if not found:
        return None
    name, done, total, elapsed, remaining = found[-1]
    return BarLine(name, int(done), int(total), elapsed, remaining)


@contextmanager
def progress(name: str, total: int, unit: str) -> Iterator[Callable[[int, int], None]]:
    """A function to call with the samples just done, and how many `unit` they were."""
    on_terminal = sys.stderr.isatty()
    started, said = time.monotonic(), -SECONDS_BETWEEN_LINES
    done = amount = 0
    with tqdm(total=total, desc=name.capitalize(), unit="sample", disable=not on_terminal) as bar:

        def advance(count: int, more: int) -> None:
            nonlocal done, amount, said
            done, amount = done + count, amount + more
            elapsed = max(time.monotonic() - started, 1e-9)
            speed = f"{amount / elapsed:,.0f} {unit}/s"
            bar.update(count)
            bar.set_postfix_str(speed)
            if not on_terminal and (done == total or elapsed - said >= SECONDS_BETWEEN_LINES):
                said = elapsed
                left = elapsed / done * (total - done)
                logger.info("%s, %s", BarLine(name, done, total, _clock(elapsed), _clock(left)), speed)

        yield advance


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))
