"""The order of the samples: draw a domain by the probabilities, then take its next sample without replacement.

Draw t uses the t-th number of a counter-based random stream. A domain's n-th draw uses the n-th entry of its seeded
permutations. The order is thus a function of (seed, history of the probabilities, t): it is the same on every rank, and
can be replayed without reading data (method section 6).
"""

from collections.abc import Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

CHUNK = 4096  # draws made at once, and so the most that a change of the probabilities makes again
_NEVER = 1 << 62


class MixtureSampler:
    """An endless stream of sample indices in epochs of `epoch_size`; a `torch.utils.data` sampler.

    `domains_N` has each sample's domain. A new permutation follows a domain's last sample. With `max_repeats`, a domain
    that was seen in full so often leaves its share to the others, until all domains have been. Unless `shuffled`, each
    pass is in the order of the data; the choice of the domain stays random.
    """

    def __init__(
        self,
        domains_N: ArrayLike,
        probabilities_D: ArrayLike,
        *,
        seed: int,
        epoch_size: int,
        max_repeats: int | None = None,
        shuffled: bool = True,
    ) -> None:
        domains_N = np.asarray(domains_N)
        self.seed = seed
        self.epoch_size = epoch_size
        self.max_repeats = max_repeats
        self.shuffled = shuffled
        self.sizes_D = np.bincount(domains_N, minlength=len(np.asarray(probabilities_D))).astype(np.int64)
        self._members_N = np.argsort(domains_N, kind="stable").astype(np.uint32)
        self._order_N = self._members_N.copy()  # each domain's samples in the order of its current pass
        self._turns_D = np.full(len(self.sizes_D), -1, dtype=np.int64)  # the number of this pass
        self._starts_D = np.concatenate([[0], np.cumsum(self.sizes_D)[:-1]])
        self.history: list[tuple[int, NDArray[np.float64]]] = []
        self.is_over = False  # whether no draw is handed out any more
        self._epoch = self._first_epoch = 0
        self._stale_from = _NEVER  # from this draw on, draws made in advance are out of date
        self._rewind()
        self.set_probabilities(probabilities_D)

    def __len__(self) -> int:
        return self.epoch_size

    def set_epoch(self, epoch: int) -> None:
        """Start the next iteration at this epoch's first draw, but not before the epoch of `resume_in`."""
        self._epoch = max(epoch, self._first_epoch)

    def resume_in(self, epoch: int) -> None:
        """Resume in this epoch, whatever the loader says: before transformers 5 one that skips batches counts epochs
        anew, and with several processes none gives an epoch.
        """
        self._first_epoch = self._epoch = epoch

    def set_probabilities(self, probabilities_D: ArrayLike, block: int = 1) -> int:
        """Use these probabilities from the next block of draws on. Returns the first draw (from 0) that uses them."""
        probabilities_D = np.asarray(probabilities_D, dtype=np.float64)
        if np.any((self.sizes_D == 0) & (probabilities_D > 0)):
            raise ValueError("a domain without samples has a positive probability")
        start = -(-self.position // block) * block
        while self.history and self.history[-1][0] >= start:
            self.history.pop()
        self.history.append((start, probabilities_D))
        self._stale_from = min(self._stale_from, start)
        return start

    def __iter__(self) -> Iterator[int]:
        if self.is_over:
            return
        start = self._epoch * self.epoch_size
        self.seek(start)
        while self.position < start + self.epoch_size:
            position, self._stale_from = self.position, _NEVER
            chunk = self._draw(min(CHUNK, start + self.epoch_size - position))
            for i, sample in enumerate(chunk):
                if position + i >= self._stale_from:
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
        """Number of samples drawn of each domain so far, shape D."""
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
        by_domain, grouped, rank = in_groups(domains)
        turns, places = np.divmod(self._counts_D[grouped] + rank, self.sizes_D[grouped])
        samples = np.empty(count, dtype=np.int64)
        # few domains begin a pass within a chunk and need a loop over passes; one look-up serves the others
        stale = np.unique(grouped[turns != self._turns_D[grouped]])
        ready = ~np.isin(grouped, stale)
        samples[by_domain[ready]] = self._order_N[self._starts_D[grouped[ready]] + places[ready]]
        for domain in stale:
            mine = np.flatnonzero(grouped == domain)
            for turn in np.unique(turns[mine]):
                now = mine[turns[mine] == turn]
                samples[by_domain[now]] = self._shuffled(int(domain), int(turn))[places[now]]
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
        if self.max_repeats is None:
            return _pick(p_D, uniforms)
        parts, done, most_D = [], 0, self.max_repeats * self.sizes_D
        while done < len(uniforms):
            rounds_D = counts_D // np.maximum(most_D, 1)
            open_D = (self.sizes_D > 0) & (rounds_D == rounds_D[self.sizes_D > 0].min())
            left_D = p_D * open_D
            # a new pick among the open domains: the neighbours alone would otherwise get an exhausted domain's draws
            picked = _pick(left_D if left_D.any() else open_D * self.sizes_D, uniforms[done:])
            parts.append(picked[: _until_one_is_full(picked, most_D * (rounds_D + 1) - counts_D)])
            counts_D += np.bincount(parts[-1], minlength=len(counts_D))
            done += len(parts[-1])
        return np.concatenate(parts)

    def _uniforms(self, start: int, stop: int) -> NDArray[np.float64]:
        first, last = start // CHUNK, (stop - 1) // CHUNK
        blocks = [
            np.random.Generator(np.random.Philox(key=(self.seed, block))).random(CHUNK)
            for block in range(first, last + 1)
        ]
        return np.concatenate(blocks)[start - first * CHUNK : stop - first * CHUNK]

    def _shuffled(self, domain: int, turn: int) -> NDArray[np.uint32]:
        """A domain's samples in the order of its pass `turn`, counted from 0."""
        mine = slice(self._starts_D[domain], self._starts_D[domain] + self.sizes_D[domain])
        if self._turns_D[domain] != turn and self.shuffled:
            generator = np.random.Generator(np.random.Philox(key=(self.seed, (turn << 32) + domain + (1 << 63))))
            self._order_N[mine] = generator.permutation(self._members_N[mine])
        self._turns_D[domain] = turn
        return self._order_N[mine]


def in_groups(domains: NDArray[np.int64]) -> tuple[NDArray[np.intp], NDArray[np.int64], NDArray[np.int64]]:
    """The draws sorted by domain: index in `domains`, domain, and number of earlier draws of the same domain."""
    order = np.argsort(domains, kind="stable")
    grouped = domains[order]
    starts = np.flatnonzero(np.diff(grouped, prepend=-1))
    return order, grouped, np.arange(len(domains)) - np.repeat(starts, np.diff(starts, append=len(domains)))


def _until_one_is_full(picked: NDArray[np.int64], room_D: NDArray[np.int64]) -> int:
    """The number of these draws until a domain has no room left; all of them if none fills up."""
    order, grouped, rank = in_groups(picked)
    last = order[rank + 1 == room_D[grouped]]
    return int(last.min()) + 1 if len(last) else len(picked)


def _pick(p_D: Sequence[float] | NDArray[np.float64], uniforms: NDArray[np.float64]) -> NDArray[np.int64]:
    """The domain whose share of [0, 1) contains each number. A domain of probability zero is never picked."""
    cumulative = np.cumsum(p_D)
    last = int(np.flatnonzero(np.asarray(p_D) > 0)[-1])
    return np.minimum(np.searchsorted(cumulative / cumulative[-1], uniforms, side="right"), last)
