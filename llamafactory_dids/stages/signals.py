"""What a mixer asked for, measured: task losses, and the impact of each domain on each task (sections 2 and 3).

One pass over a task's observed samples gives its loss, mean gradient and diagonal Fisher matrix. Ranks share
the batches and add up, so that all of them hold the same numbers.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.fisher import impact, marginal_impact
from ..mixers.base import MARGINAL, Needs
from . import ranks
from .batching import Collate, length_batches, num_tokens, to_device
from .entries import TrackedEntries
from .per_sample import GradientEngine

Rows = Sequence[Mapping[str, Any]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True)
class TaskMeasurement:
    """Mean loss over samples, mean gradient and diagonal Fisher (mean of squares, equation 11) of each of T tasks."""

    losses_T: Floats
    gradients_TP: Tensor
    fisher_TP: Tensor


class Meter:
    """Measures samples through the gradient engine, on the tracked entries.

    `collate` makes a batch of samples; `precision` is the context (autocast) that the training runs in, `device` where
    it computes (the model's parameters may wait elsewhere).
    """

    def __init__(
        self,
        engine: GradientEngine,
        entries: TrackedEntries,
        collate: Collate,
        *,
        batch_size: int = 8,
        max_tokens: int = 16_384,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        device: torch.device | str = "cpu",
    ) -> None:
        self.engine = engine
        self.entries = entries
        self.collate = collate
        self.batch_size = batch_size
        self.max_tokens = max_tokens
        self.precision = precision
        self.device = torch.device(device)

    def tasks(self, tasks: Sequence[Rows]) -> TaskMeasurement:
        """Measure every task; each of its samples that has terms counts the same."""
        sums_TP = torch.zeros(len(tasks), self.entries.size, device=self.device)
        squares_TP = torch.zeros_like(sums_TP)
        losses_T, counts_T = torch.zeros(2, len(tasks), dtype=torch.float64, device=self.device)
        for task, rows in enumerate(tasks):
            for losses_N, counts_N, gradients_NP in self._measure(rows):
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
        for _, counts_N, gradients_NP in self._measure(rows):
            sum_P += (gradients_NP * counts_N[:, None]).sum(dim=0)
            count += counts_N.sum()
        ranks.sum_over_ranks(sum_P, count)
        return sum_P / count.clamp(min=1)

    def _measure(self, rows: Rows) -> Any:
        lengths = [num_tokens(row) for row in rows]
        for batch, counts in ranks.shared_out(length_batches(lengths, self.batch_size, self.max_tokens)):
            measured = self._batch([dict(rows[i]) for i in batch])
            if counts:
                yield measured

    def _batch(self, samples: list[dict[str, Any]]) -> tuple[Tensor, Tensor, Tensor]:
        with self.precision():
            losses_N, counts_N, pairs = self.engine.run(to_device(self.collate(samples), self.device))
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
