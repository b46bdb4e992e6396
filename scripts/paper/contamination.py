"""Which training rows share a run of 13 words with a scored question.

Words are letters and digits, in lower case. Each run of 13 has a 64-bit number: a polynomial of its words' numbers,
made of a row's array of words by 13 shifted multiplications, and looked up among the questions' sorted runs. One pass
over the training rows, which are not kept; memory is 8 bytes a run of the questions. Two runs of different words have
one number with a probability of 2^-64.

Not seen: a question shorter than 13 words, and text without spaces between its words. A run that many questions share
is wording of the task, such as how its answer is to be given, and no sign of a leak: it does not count.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

RUN = 13
COMMON = 10  # questions that share a run, from which it is wording
EXAMPLES = 3  # kept of each source and task
_WORD = re.compile(r"[^\W_]+")
_BASE = 0x9E3779B97F4A7C15  # odd, so that no power is lost in 64 bits
_POWERS = [pow(_BASE, RUN - 1 - place, 2**64) for place in range(RUN)]
Runs = NDArray[np.uint64]


class Words:
    """Numbers of words, each hashed once."""

    def __init__(self) -> None:
        self._known: dict[str, int] = {}

    def runs(self, text: str) -> Runs:
        """The numbers of all runs of 13 words, in their order; none of a shorter text."""
        numbers = [self._number(word) for word in _WORD.findall(text.lower())]
        if len(numbers) < RUN:
            return np.empty(0, dtype=np.uint64)
        words = np.array(numbers, dtype=np.uint64)
        count = len(words) - RUN + 1
        found: Runs = np.zeros(count, dtype=np.uint64)
        for place, power in enumerate(_POWERS):
            found += words[place : place + count] * np.uint64(power)  # modulo 2^64
        return found

    def _number(self, word: str) -> int:
        if word not in self._known:
            digest = hashlib.blake2b(word.encode(), digest_size=8).digest()
            self._known[word] = int.from_bytes(digest, "little")
        return self._known[word]


@dataclass
class Report:
    """What was found: rows and overlapping rows by source, and of these by task."""

    rows: Counter[str] = field(default_factory=Counter)
    overlapping: Counter[str] = field(default_factory=Counter)
    by_task: dict[str, Counter[str]] = field(default_factory=dict)
    examples: dict[str, list[str]] = field(default_factory=dict)

    def add(self, source: str, task: str | None, text: str) -> None:
        """Count a row, which shares a run with a question of `task`, or with none."""
        self.rows[source] += 1
        if task is None:
            return
        self.overlapping[source] += 1
        self.by_task.setdefault(task, Counter())[source] += 1
        kept = self.examples.setdefault(f"{source}, {task}", [])
        if len(kept) < EXAMPLES:
            kept.append(text)

    def left(self, *, removed: bool) -> dict[str, int]:
        """Rows of each source, without those that overlap where they are removed."""
        return {source: count - removed * self.overlapping[source] for source, count in self.rows.items()}

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return {
            "words": RUN,
            "rows": dict(self.rows),
            "overlapping": dict(self.overlapping),
            "by_task": {task: dict(counts) for task, counts in self.by_task.items()},
            "examples": self.examples,
        }


class Questions:
    """The runs of the scored questions, and whose they are."""

    def __init__(self, by_task: Mapping[str, Sequence[str]], common: int = COMMON) -> None:
        self.words = Words()
        self.tasks = tuple(by_task)
        self.short = {task: sum(len(self.words.runs(text)) == 0 for text in texts) for task, texts in by_task.items()}
        parts = [self._of_task(index, texts, common) for index, texts in enumerate(by_task.values())]
        runs = np.concatenate([runs for runs, _ in parts]) if parts else np.empty(0, dtype=np.uint64)
        owners = np.concatenate([owners for _, owners in parts]) if parts else np.empty(0, dtype=np.int64)
        order = np.argsort(runs, kind="stable")
        self._runs, self._owners = runs[order], owners[order]

    def _of_task(self, index: int, texts: Iterable[str], common: int) -> tuple[Runs, NDArray[np.int64]]:
        of_each = [np.unique(self.words.runs(text)) for text in texts]
        together = np.concatenate(of_each) if of_each else np.empty(0, dtype=np.uint64)
        runs, counts = np.unique(together, return_counts=True)
        runs = runs[counts < common]
        return runs, np.full(len(runs), index, dtype=np.int64)

    def task_of(self, text: str) -> str | None:
        """The task of a question that shares a run of words with the text, the first in the text; None if none does."""
        runs = self.words.runs(text)
        if not len(runs) or not len(self._runs):
            return None
        places = np.minimum(np.searchsorted(self._runs, runs), len(self._runs) - 1)
        hits = np.flatnonzero(self._runs[places] == runs)
        return self.tasks[self._owners[places[hits[0]]]] if len(hits) else None
