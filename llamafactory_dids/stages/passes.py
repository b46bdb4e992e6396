"""Samples through a model in batches that fit into memory. Tokens bound a batch; a batch that does not fit is halved.

Later batches are then halved too. The gradient stage and the measurements share this module.
"""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import torch

from ..core import devices
from ..errors import DidsError
from . import ranks
from .batching import length_batches, to_device

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Batch = Mapping[str, Any]


class Passes:
    """Batches of at most `max_samples` and `max_tokens` with padding, on `device`. A longer sample is a batch alone.

    With `together` the ranks share the batches of the same samples, and all make the same number of passes; else each
    rank has its own samples. `name` appears in the log, `advice` in the error if not even one sample fits.
    """

    def __init__(
        self, name: str, advice: str, max_samples: int, max_tokens: int, device: torch.device, *, together: bool
    ) -> None:
        self.name = name
        self.advice = advice
        self.max_samples = max_samples
        self.max_tokens = max_tokens
        self.device = device
        self.together = together

    def batches(self, lengths_N: Sequence[int], places: Sequence[int] | None = None) -> list[list[int]]:
        """The samples, or the samples at `places`, in batches of similar length."""
        places = range(len(lengths_N)) if places is None else sorted(places)
        cut = length_batches([lengths_N[i] for i in places], self.max_samples, self.max_tokens)
        return [[places[i] for i in batch] for batch in cut]

    def over(
        self, lengths_N: Sequence[int], collate: Callable[[list[int]], Batch], compute: Callable[[Batch], Result]
    ) -> Iterator[tuple[list[int], Result]]:
        """(indices of its samples, result of `compute`) of each batch of this rank.

        If memory runs out on any rank that shares the batches, this turn and all later batches are cut anew, so that
        all ranks have the same batches. Raises DidsError if a single sample does not fit.
        """
        batches = self.batches(lengths_N)
        with ThreadPoolExecutor(1) as pool:
            ahead: tuple[list[int], Future[Batch]] | None = None
            while batches:
                turn, later = self._turn(batches)
                (mine, counts), (following, _) = self._mine(turn), self._mine(self._turn(later)[0])
                batch = ahead[1].result() if ahead is not None and ahead[0] == mine else collate(mine)
                # the next batch is made while an accelerator computes
                makes_ahead = bool(following) and self.device.type != "cpu"
                ahead = (following, pool.submit(collate, following)) if makes_ahead else None
                found = self._try(compute, batch)
                if not self._all(found is not None):
                    self._halve(turn, lengths_N)
                    batches = self.batches(lengths_N, [place for batch in batches for place in batch])
                    continue
                if counts:
                    assert found is not None
                    yield mine, found[0]
                batches = later

    def try_longest(
        self, lengths_N: Sequence[int], collate: Callable[[list[int]], Batch], compute: Callable[[Batch], Any]
    ) -> None:
        """Run the first batch alone, of the longest samples, on every rank. If it fits, later batches fit."""
        longest = self.batches(lengths_N)[:1]
        places = [place for batch in longest for place in batch]
        for _ in self.over([lengths_N[i] for i in places], lambda some: collate([places[i] for i in some]), compute):
            pass

    def _turn(self, batches: list[list[int]]) -> tuple[list[list[int]], list[list[int]]]:
        width = ranks.world()[1] if self.together else 1
        return batches[:width], batches[width:]

    def _mine(self, turn: list[list[int]]) -> tuple[list[int], bool]:
        if not turn:
            return [], False
        return ranks.share_of(turn) if self.together else (turn[0], True)

    def _all(self, fits: bool) -> bool:
        return not ranks.any_rank(not fits) if self.together else fits

    def _try(self, compute: Callable[[Batch], Result], batch: Batch) -> tuple[Result] | None:
        """The result; None if it did not fit into memory, which is free again only after the `except` block."""
        try:
            return (compute(to_device(batch, self.device)),)
        except RuntimeError as error:
            if not devices.is_out_of_memory(error):
                raise
        return None

    def _halve(self, turn: list[list[int]], lengths_N: Sequence[int]) -> None:
        devices.release(self.device)
        size = max(len(batch) for batch in turn)
        longest = max(lengths_N[place] for batch in turn for place in batch)
        if size == 1:
            raise DidsError(
                f"{self.name}: one sample ({longest:,} tokens long) does not fit into the memory of {self.device}; "
                f"allowed: {self.advice}"
            )
        self.max_samples = size // 2
        self.max_tokens = max(len(batch) * max(lengths_N[place] for place in batch) for batch in turn) // 2
        logger.warning(
            "%s: a batch of %d samples is too large for the memory of %s, from now on at most %d samples and %d tokens",
            self.name,
            size,
            self.device,
            self.max_samples,
            self.max_tokens,
        )
