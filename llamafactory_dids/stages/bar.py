"""The progress of a long stage: a bar on a terminal, else lines of the log, which the web page reads back.

with progress("gradients", total=270, unit="tokens") as advance:
    advance(8, tokens)
"""

import logging
import os
import re
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple, Protocol

from tqdm import tqdm

logger = logging.getLogger(__name__)

SECONDS_BETWEEN_LINES = 5.0
_LINE = re.compile(r">> ([^\n:>]+?): (\d+) of (\d+) (?:sample|dataset|task|domain)s, (\S+) < ([^\s,]+)")


class Advance(Protocol):
    """Adds `count` items, and `more` of the unit, to the progress."""

    def __call__(self, count: int, more: int = 0) -> None: ...


class BarLine(NamedTuple):
    """A line of progress: the number done, the total, and the time spent and left as h:mm:ss."""

    name: str
    done: int
    total: int
    elapsed: str
    remaining: str
    of: str = "sample"

    def __str__(self) -> str:
        return f"{self.name}: {self.done} of {self.total} {self.of}s, {self.elapsed} < {self.remaining}"


def last_progress(log: str) -> BarLine | None:
    """The newest line of progress in a log whose lines end in `>> message`; None if there is none."""
    found = _LINE.findall(log)
    if not found:
        return None
    name, done, total, elapsed, remaining = found[-1]
    return BarLine(name, int(done), int(total), elapsed, remaining)


@contextmanager
def progress(name: str, total: int, unit: str = "", of: str = "sample") -> Iterator[Advance]:
    """A function to call with each advance: how many `of` (sample, dataset, task or domain) are done, and of `unit`."""
    on_terminal = sys.stderr.isatty() and os.environ.get("RANK", "0") == "0"  # one bar, not one for each rank
    started, said = time.monotonic(), -SECONDS_BETWEEN_LINES
    done = amount = 0
    with tqdm(total=total, desc=name.capitalize(), unit=of, disable=not on_terminal) as bar:

        def advance(count: int, more: int = 0) -> None:
            nonlocal done, amount, said
            done, amount = done + count, amount + more
            elapsed = max(time.monotonic() - started, 1e-9)
            speed = f", {amount / elapsed:,.0f} {unit}/s" if unit else ""
            bar.update(count)
            bar.set_postfix_str(speed.removeprefix(", "))
            if not on_terminal and (done == total or elapsed - said >= SECONDS_BETWEEN_LINES):
                said = elapsed
                left = elapsed / max(done, 1) * (total - done)
                logger.info("%s%s", BarLine(name, done, total, _clock(elapsed), _clock(left), of), speed)

        yield advance


@contextmanager
def beside_bars() -> Iterator[None]:
    """Inside this context, printed text does not run into a bar on the terminal, no matter who drew the bar."""
    with tqdm.external_write_mode(file=sys.stdout):
        yield


def _clock(seconds: float) -> str:
    """h:mm:ss, of days too: `timedelta` would write `1 day, 2:00:00`, which the pattern of a line does not match."""
    minutes = int(seconds) // 60
    return f"{minutes // 60}:{minutes % 60:02}:{int(seconds) % 60:02}"
