"""Losses by forward passes alone: of tasks, and how far each term's is above what another model's was.

Ranks share the batches and add up, so that all of them hold the same numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from . import ranks
from .batching import Collate, length_batches, num_tokens, to_device
from .losses import Objective
from .per_sample import evaluating


class TokenLosses(NamedTuple):
    """Losses of the terms (labelled tokens) of N samples, a sample's in its row's first `counts_N` places, then 0."""

    losses_NS: Tensor
    counts_N: Tensor

    def mean(self) -> float:
        """Mean over the samples that have terms of their mean loss; NaN without any."""
        labelled_N = self.counts_N > 0
        return float((self.losses_NS[labelled_N].sum(dim=1) / self.counts_N[labelled_N]).mean())

    def excess_over(self, reference: "TokenLosses") -> float:
        """max(loss - reference, 0), averaged over all terms (DoReMi, Algorithm 1); NaN without any."""
        over_NS = (self.losses_NS - reference.losses_NS).clamp(min=0)
        return float(over_NS.sum() / self.counts_N.sum())


class LossMeter:
    """Runs samples through a model in eval mode. `objective`, `collate`, `precision` and `device` as for `Meter`."""

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        collate: Collate,
        *,
        batch_size: int = 8,
        max_tokens: int = 16_384,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = model
        self.objective = objective
        self.collate = collate
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.precision = precision
        self.device = torch.device(device)

    @torch.no_grad()
    def token_losses(self, rows: Sequence[Mapping[str, Any]]) -> TokenLosses:
        """The loss of each term of each sample, in float64 on the CPU."""
        lengths = [num_tokens(row) for row in rows]
        losses_NS = torch.zeros(len(rows), max(lengths, default=0), dtype=torch.float64, device=self.device)
        counts_N = torch.zeros(len(rows), dtype=torch.int64, device=self.device)
        with evaluating(self.model):
            for batch, counts in ranks.shared_out(length_batches(lengths, self.batch_size, self.max_tokens)):
                inputs = to_device(self.collate([dict(rows[i]) for i in batch]), self.device)
                with self.precision():
                    losses_J, samples_J = self.objective.terms(self.model, inputs)
                for place, row in enumerate(batch if counts else ()):
                    mine = losses_J[samples_J == place]
                    losses_NS[row, : len(mine)] = mine.double()
                    counts_N[row] = len(mine)
        ranks.sum_over_ranks(losses_NS, counts_N)
        return TokenLosses(losses_NS.cpu(), counts_N.cpu())
