"""Which sample comes next: a domain by the current probabilities, then its next sample without replacement.

Draw t takes the t-th number of a counter-based random stream, and a domain's n-th draw the n-th entry of its
seeded permutations. So the sample order is a function of (seed, history of the probabilities, t): the same on
every rank, and replayed without touching data (method section 6).
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

CHUNK = 4096  # draws made at once; a change of the probabilities re-draws at most as many


class MixtureSampler:
    """An endless stream of sample indices in epochs of `epoch_size`; a `torch.utils.data` sampler.

    `domains_N` gives each sample's domain. `exhausted` says what follows a domain's last sample: a new
    permutation (`reshuffle`), or its share goes to the others (`drop`) until all have been seen.
    """

    def __init__(
        self,
        domains_N: ArrayLike,
        probabilities_D: ArrayLike,
        *,
        seed: int,
        epoch_size: int,
        exhausted: str = "reshuffle",
    ) -> None:
        domains_N = np.asarray(domains_N)
        self.seed = seed
        self.epoch_size = epoch_size
        self.drop = exhausted == "drop"
        self.sizes_D = np.bincount(domains_N, minlength=len(np.asarray(probabilities_D))).astype(np.int64)
        self._members = np.argsort(domains_N, kind="stable").astype(np.uint32)
        self._starts_D = np.concatenate([[0], np.cumsum(self.sizes_D)[:-1]])
        self._orders: dict[int, tuple[int, NDArray[np.uint32]]] = {}
        self.history: list[tuple[int, NDArray[np.float64]]] = []
        self._epoch = 0
        self._rewind()
        self.set_probabilities(probabilities_D)

    def __len__(self) -> int:
        return self.epoch_size

    def set_epoch(self, epoch: int) -> None:
        """The next iteration starts at this epoch's first draw."""
        self._epoch = epoch

    def set_probabilities(self, probabilities_D: ArrayLike) -> int:
        """Draw by these from now on. Returns the first draw (counted from 0) that they apply to."""
        probabilities_D = np.asarray(probabilities_D, dtype=np.float64)
        if np.any((self.sizes_D == 0) & (probabilities_D > 0)):
            raise ValueError("a domain without samples has a positive probability")
        while self.history and self.history[-1][0] >= self.position:
            self.history.pop()
        self.history.append((self.position, probabilities_D))
        return self.position

    def __iter__(self) -> Iterator[int]:
        start = self._epoch * self.epoch_size
        self.seek(start)
        while self.position < start + self.epoch_size:
            position = self.position
            chunk = self._draw(min(CHUNK, start + self.epoch_size - position))
            for i, sample in enumerate(chunk):
                if self.history[-1][0] > position and self.history[-1][0] == position + i:
                    break  # the probabilities changed while this chunk was being handed out
                self.position = position + i + 1
                yield sample
            self._count(position, self.position)
        self._epoch += 1

    def seek(self, position: int) -> None:
        """Go to a draw: forward by replaying indices, backward by replaying from the start."""
        if position < self._counted:
            self._rewind()
        while self._counted < position:
            self._count(self._counted, min(self._counted + CHUNK, position))
        self.position = position

    def drawn(self) -> NDArray[np.int64]:
        """Samples drawn of each domain so far, shape D."""
        counts_D = self._counts_D.copy()
        for start in range(self._counted, self.position, CHUNK):
            counts_D += np.bincount(self._domains(start, min(start + CHUNK, self.position)), minlength=len(counts_D))
        return counts_D

    def _rewind(self) -> None:
        self.position = 0
        self._counted = 0  # draws that `_counts_D` includes
        self._counts_D = np.zeros(len(self.sizes_D), dtype=np.int64)

    def _count(self, start: int, stop: int) -> None:
        domains = self._domains(start, stop)
        self._counts_D += np.bincount(domains, minlength=len(self.sizes_D))
        self._counted = stop

    def _draw(self, count: int) -> list[int]:
        """The samples of the next `count` draws."""
        domains = self._domains(self.position, self.position + count)
        samples = np.empty(count, dtype=np.int64)
        for domain in np.unique(domains):
            where = np.flatnonzero(domains == domain)
            samples[where] = self._samples(int(domain), self._counts_D[domain] + np.arange(len(where)))
        return samples.tolist()  # type: ignore[no-any-return]

    def _domains(self, start: int, stop: int) -> NDArray[np.int64]:
        """The domain of each draw in [start, stop), given the counts before `start`."""
        domains = np.empty(stop - start, dtype=np.int64)
        bounds = [max(at, start) for at, _ in self.history if at < stop] + [stop]
        first = max(i for i, (at, _) in enumerate(self.history) if at <= start)
        counts_D = self._counts_D.copy()
        for (_, p_D), lo, hi in zip(self.history[first:], bounds[first:], bounds[first + 1 :], strict=False):
            domains[lo - start : hi - start] = self._choose(p_D, lo, hi, counts_D)
        return domains

    def _choose(
        self, p_D: NDArray[np.float64], start: int, stop: int, counts_D: NDArray[np.int64]
    ) -> NDArray[np.int64]:
        uniforms = self._uniforms(start, stop)
        if not self.drop:
            return _pick(p_D, uniforms)
        chosen = np.empty(stop - start, dtype=np.int64)
        for i in range(len(chosen)):  # a domain may run out at any draw
            passes = counts_D // np.maximum(self.sizes_D, 1)
            open_D = (self.sizes_D > 0) & (passes == passes[self.sizes_D > 0].min())
            left_D = p_D * open_D
            # picked anew among what is left: an exhausted domain's own numbers would all fall to its neighbours
            chosen[i] = _pick(left_D if left_D.any() else open_D * self.sizes_D, uniforms[i : i + 1])[0]
            counts_D[chosen[i]] += 1
        return chosen

    def _uniforms(self, start: int, stop: int) -> NDArray[np.float64]:
        first, last = start // CHUNK, (stop - 1) // CHUNK
        blocks = [
            np.random.Generator(np.random.Philox(key=(self.seed, block))).random(CHUNK)
            for block in range(first, last + 1)
        ]
        return np.concatenate(blocks)[start - first * CHUNK : stop - first * CHUNK]

    def _samples(self, domain: int, draws: NDArray[np.int64]) -> NDArray[np.uint32]:
        """The samples of a domain's draws, numbered over all its passes."""
        size = self.sizes_D[domain]
        samples = np.empty(len(draws), dtype=np.uint32)
        for turn in np.unique(draws // size):
            where = draws // size == turn
            samples[where] = self._order(domain, int(turn))[draws[where] - turn * size]
        return samples

    def _order(self, domain: int, turn: int) -> NDArray[np.uint32]:
        if self._orders.get(domain, (-1,))[0] != turn:
            generator = np.random.Generator(np.random.Philox(key=(self.seed, (turn << 32) + domain + (1 << 63))))
            start = self._starts_D[domain]
            members = self._members[start : start + self.sizes_D[domain]]
            self._orders[domain] = (turn, generator.permutation(members))
        return self._orders[domain][1]


def _pick(p_D: Sequence[float] | NDArray[np.float64], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    """The domain in whose share of [0, 1) each number falls; never one of probability zero."""
    cumulative = np.cumsum(p_D)
    last = int(np.flatnonzero(np.asarray(p_D) > 0)[-1])
    return np.minimum(np.searchsorted(cumulative / cumulative[-1], uniforms, side="right"), last)
