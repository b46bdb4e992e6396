"""Samples through a model in batches that fit: bounded by tokens, and halved from then on where memory runs out.

The gradient stage and the measurements share it. `P` entries nowhere here: a batch is what goes through the model.
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
    """Batches of at most `max_samples` and `max_tokens`, padding counted (a longer sample goes alone), on `device`.

    `together`: whether the ranks take turns with the batches of the same samples, each as many passes as the others;
    else each rank has samples of its own. `name` is said in the log, `advice` when not even one sample fits.
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
        """The samples, or those at some places, in batches of like length."""
        places = range(len(lengths_N)) if places is None else sorted(places)
        cut = length_batches([lengths_N[i] for i in places], self.max_samples, self.max_tokens)
        return [[places[i] for i in batch] for batch in cut]

    def over(
        self, lengths_N: Sequence[int], collate: Callable[[list[int]], Batch], compute: Callable[[Batch], Result]
    ) -> Iterator[tuple[list[int], Result]]:
        """(places of its samples, what `compute` gives) of each batch that counts on this rank.

        Where memory runs out, on any of the ranks that take turns, the batches of that turn and those after it are cut
        anew, so that all ranks go on with the same ones. Raises DidsError where one sample is too many.
        """
        batches = self.batches(lengths_N)
        with ThreadPoolExecutor(1) as pool:
            ahead: tuple[list[int], Future[Batch]] | None = None
            while batches:
                turn, later = self._turn(batches)
                (mine, counts), (following, _) = self._mine(turn), self._mine(self._turn(later)[0])
                batch = ahead[1].result() if ahead is not None and ahead[0] == mine else collate(mine)
                # while an accelerator computes, the next batch is made
                makes_ahead = bool(following) and self.device.type != "cpu"
                ahead = (following, pool.submit(collate, following)) if makes_ahead else None
                found, fits = self._try(compute, batch)
                if not self._all(fits):
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
        """The first batch alone, of the longest samples, on every rank: what fits now is not too large later."""
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

    def _try(self, compute: Callable[[Batch], Result], batch: Batch) -> tuple[tuple[Result] | None, bool]:
        """What was computed, and whether there was memory for it; only outside of `except` is it free again."""
        try:
            return (compute(to_device(batch, self.device)),), True
        except RuntimeError as error:
            if not devices.is_out_of_memory(error):
                raise
        return None, False

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
