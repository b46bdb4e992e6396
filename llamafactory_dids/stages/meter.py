"""What a mixer asked for, measured: losses, gradients, and the impact of each domain on each task (sections 2 and 3).

`Meter` takes forward passes alone: each term's loss. `GradientMeter` also takes backward passes: one pass over a task's
observed samples gives its loss, mean gradient and diagonal Fisher matrix. Ranks share the batches and add up, so that
all of them hold the same numbers.

Shapes: `N` samples, `S` terms of a sample, `J` terms of a batch, `P` entries, `D` domains, `T` tasks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from ..core.fisher import impact, marginal_impact
from ..mixers.base import MARGINAL, Needs
from . import ranks
from .batching import Collate, length_batches, num_tokens, to_device
from .entries import TrackedEntries
from .losses import Objective
from .per_sample import GradientEngine, evaluating

Measured = TypeVar("Measured")
Rows = Sequence[Mapping[str, Any]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


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


class Meter:
    """Runs samples through a model in eval mode, in batches of like length.

    `collate` makes a batch of samples; `precision` is the context (autocast) that the training runs in, `device` where
    it computes (the model's parameters may wait elsewhere).
    """

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
    def token_losses(self, rows: Rows) -> TokenLosses:
        """The loss of each term of each sample, in float64 on the CPU."""
        lengths_N = [num_tokens(row) for row in rows]
        losses_NS = torch.zeros(len(rows), max(lengths_N, default=0), dtype=torch.float64, device=self.device)
        counts_N = torch.zeros(len(rows), dtype=torch.int64, device=self.device)
        with evaluating(self.model):
            for batch, (losses_J, samples_J) in self._measured(rows, lengths_N, self._terms):
                for place, row in enumerate(batch):
                    mine = losses_J[samples_J == place]
                    losses_NS[row, : len(mine)] = mine.double()
                    counts_N[row] = len(mine)
        ranks.sum_over_ranks(losses_NS, counts_N)
        return TokenLosses(losses_NS.cpu(), counts_N.cpu())

    def _terms(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        with self.precision():
            return self.objective.terms(self.model, inputs)

    def _measured(
        self, rows: Rows, lengths_N: Sequence[int], measure: Callable[[Mapping[str, Any]], Measured]
    ) -> Iterator[tuple[list[int], Measured]]:
        """The places of the rows of each of this rank's batches, and what `measure` gives for the batch.

        A batch that a rank does again for nothing, so that all take as many passes, is left out.
        """
        for batch, counts in ranks.shared_out(length_batches(lengths_N, self.batch_size, self.max_tokens)):
            measured = measure(to_device(self.collate([dict(rows[i]) for i in batch]), self.device))
            if counts:
                yield batch, measured


@dataclass(frozen=True)
class TaskMeasurement:
    """Mean loss over samples, mean gradient and diagonal Fisher (mean of squares, equation 11) of each of T tasks."""

    losses_T: Floats
    gradients_TP: Tensor
    fisher_TP: Tensor


class GradientMeter(Meter):
    """Measures samples through the gradient engine, on the tracked entries. `how` is as for `Meter`."""

    def __init__(self, engine: GradientEngine, entries: TrackedEntries, collate: Collate, **how: Any) -> None:
        super().__init__(engine.model, engine.objective, collate, **how)
        self.engine = engine
        self.entries = entries

    def tasks(self, tasks: Sequence[Rows]) -> TaskMeasurement:
        """Measure every task; each of its samples that has terms counts the same."""
        sums_TP = torch.zeros(len(tasks), self.entries.size, device=self.device)
        squares_TP = torch.zeros_like(sums_TP)
        losses_T, counts_T = torch.zeros(2, len(tasks), dtype=torch.float64, device=self.device)
        for task, rows in enumerate(tasks):
            for losses_N, counts_N, gradients_NP in self._batches(rows):
                losses_T[task] += losses_N.double().sum()
                counts_T[task] += (counts_N > 0).sum()
                sums_TP[task] += gradients_NP.sum(dim=0)
                squares_TP[task] += gradients_NP.square().sum(dim=0)
        ranks.sum_over_ranks(losses_T, counts_T, sums_TP, squares_TP)
        scale_T1 = counts_T.float()[:, None]
        return TaskMeasurement((losses_T / counts_T).cpu().numpy(), sums_TP / scale_T1, squares_TP / scale_T1)

    def domain(self, rows: Rows) -> Tensor:
        """The mean gradient of samples of a domain, weighted by terms as the training loss is, shape P."""
        sum_P = torch.zeros(self.entries.size, device=self.device)
        count = torch.zeros((), device=self.device)
        for _, counts_N, gradients_NP in self._batches(rows):
            sum_P += (gradients_NP * counts_N[:, None]).sum(dim=0)
            count += counts_N.sum()
        ranks.sum_over_ranks(sum_P, count)
        return sum_P / count.clamp(min=1)

    def _batches(self, rows: Rows) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Losses (N), terms (N) and gradients (N, P) of the samples of each batch."""
        for _, measured in self._measured(rows, [num_tokens(row) for row in rows], self._gradients):
            yield measured

    def _gradients(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor, Tensor]:
        with self.precision():
            losses_N, counts_N, pairs = self.engine.run(inputs)
        blocks = [self.entries.gradients(i, self.entries.inputs(i, x), y) for i, (x, y) in enumerate(pairs)]
        return losses_N, counts_N, torch.cat(blocks, dim=1)


def impact_matrix(
    needs: Needs,
    domain_gradients_DP: Tensor,
    tasks: TaskMeasurement,
    mixture: Callable[[], tuple[Floats, Floats]] | None = None,
) -> Any:
    """The (D, T) impact in the metric and normalisation that the mixer asked for, or None.

    `mixture` gives the probabilities and each domain's terms a sample (D, D), which a marginal impact needs.
    """
    if needs.impact is None:
        return None
    kind, normalize = needs.impact
    gradients = (domain_gradients_DP, tasks.gradients_TP, tasks.fisher_TP)
    if normalize != MARGINAL:
        return impact(*gradients, kind=kind, normalize=normalize)
    assert mixture is not None, "a marginal impact is one on the mixture"
    return marginal_impact(*gradients, *mixture(), kind=kind)
