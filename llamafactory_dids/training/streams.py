"""Samples from streams. A draw is a domain and a number in its stream, and each process reads on to that number.

The order of the samples is thus the sampler's, for any number of ranks and loader workers. A resumed run reads past
earlier samples without tokenising them. The price is that a process also reads past the samples of other processes.
Handing samples out as they are read would be cheaper, but the order would depend on the number of workers.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ..errors import DidsError
from .collator import DOMAIN_COLUMN
from .plan import MixingPlan
from .sampler import MixtureSampler, in_groups

Example = dict[str, Any]

KEPT = 64  # past examples that can be had again without reading the stream anew
APART = 1 << 20  # passes from this number on are for measurements, not training


class StreamSampler(MixtureSampler):
    """Draws domains as `MixtureSampler` does, for streams of unknown length: (domain, number in its stream)."""

    def __init__(self, num_domains: int, probabilities_D: ArrayLike, *, seed: int, epoch_size: int) -> None:
        super().__init__(np.arange(num_domains), probabilities_D, seed=seed, epoch_size=epoch_size)

    def _draw(self, count: int) -> list[Any]:
        domains = self._domains(self.position, self.position + count)
        by_domain, grouped, rank = in_groups(domains)
        numbers = np.empty(count, dtype=np.int64)
        numbers[by_domain] = self._counts_D[grouped] + rank
        return list(zip(domains.tolist(), numbers.tolist(), strict=True))


class DomainStream:
    """A domain's examples by number: pass after pass over `read()`, each shuffled by a buffer in an order of its own.

    A `buffer_size` of 1 keeps the order of the stream.
    """

    def __init__(
        self, name: str, read: Callable[[], Iterator[Example]], *, buffer_size: int, key: tuple[int, int], turn: int = 0
    ) -> None:
        self.name = name
        self.read = read
        self.buffer_size = buffer_size
        self.key = key  # (seed, domain)
        self.first_turn = turn
        self._rewind()

    def example(self, number: int) -> Example:
        """The example of this number, counted from 0 over all passes. Raises DidsError if the stream is empty."""
        if number < self._next - len(self._kept):
            self._rewind()
        while self._next <= number:
            self._kept.append(self._read_one())
            self._next += 1
        return self._kept[number - self._next]

    def apart(self, draw: int) -> "DomainStream":
        """The same examples in an order of their own, for a measurement."""
        turn = APART + draw
        return DomainStream(self.name, self.read, buffer_size=self.buffer_size, key=self.key, turn=turn)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_pass"}  # for spawned workers

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._rewind()

    def _rewind(self) -> None:
        self._next = 0
        self._kept: deque[Example] = deque(maxlen=KEPT)
        self._turn = self.first_turn
        self._pass = self._one_pass()

    def _read_one(self) -> Example:
        for _ in range(2):
            for example in self._pass:
                return example
            self._turn += 1
            self._pass = self._one_pass()
        raise DidsError(f"domain {self.name!r}: its stream has no example; allowed: at least one")

    def _one_pass(self) -> Iterator[Example]:
        if self.buffer_size <= 1:
            yield from self.read()
            return
        seed, domain = self.key
        generator = np.random.Generator(np.random.Philox(key=(seed, (self._turn << 32) + domain + (1 << 62))))
        buffer: list[Example] = []
        for example in self.read():
            if len(buffer) < self.buffer_size:
                buffer.append(example)
                continue
            place = int(generator.integers(self.buffer_size))
            yield buffer[place]
            buffer[place] = example
        for place in generator.permutation(len(buffer)):
            yield buffer[place]


class StreamedRows:
    """Tokenised rows by (domain, number), for a data loader; it has no length.

    If `tokenise` makes no row of an example, the domain's next example replaces it. The numbers therefore do not depend
    on earlier tokenising.
    """

    def __init__(self, streams: Sequence[DomainStream], tokenise: Callable[[Example], dict[str, Any] | None]) -> None:
        self.streams = streams
        self.tokenise = tokenise

    def __getitem__(self, index: tuple[int, int]) -> dict[str, Any]:
        domain, number = index
        return self._row(self.streams[domain], domain, number)

    def some(self, domain: int, count: int, draw: int) -> list[dict[str, Any]]:
        """`count` rows from the beginning of a domain's stream. The same `draw` gives the same rows."""
        stream = self.streams[domain].apart(draw)
        return [self._row(stream, domain, number) for number in range(count)]

    def _row(self, stream: DomainStream, domain: int, number: int) -> dict[str, Any]:
        for offset in range(KEPT):
            if (row := self.tokenise(stream.example(number + offset))) is not None:
                return {**row, DOMAIN_COLUMN: domain}
        raise DidsError(f"domain {stream.name!r}: {KEPT} examples on end of which the host makes no row")


def sampler_of(plan: MixingPlan, p_D: NDArray[np.float64], per_step: int, max_steps: int) -> MixtureSampler:
    """The plan's sampler. An epoch is a draw for each sample, filled up to whole steps; of streams, the whole run."""
    p_D = plan.draws(p_D)
    if plan.streamed:
        return StreamSampler(len(plan.domain_names), p_D, seed=plan.seed, epoch_size=max_steps * per_step)
    return MixtureSampler(
        plan.domains_N,
        p_D,
        seed=plan.seed,
        epoch_size=-(-len(plan.domains_N) // per_step) * per_step,
        max_repeats=plan.config.dids_max_repeats,
        shuffled=plan.shuffled,
    )
