"""The measurements that a mixer asks for: losses, and gradients of tasks and domains (sections 2 and 3).

`Meter` uses forward passes alone, and gives the loss of each term. `GradientMeter` also uses backward passes: one pass
over a task's observed samples gives its loss, mean gradient and diagonal Fisher matrix. The ranks share the batches and
add up their results, so all ranks hold the same numbers.

Shapes: `N` samples, `S` terms of a sample, `J` terms of a batch, `P` entries, `D` domains, `T` tasks.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from ..core import devices
from . import ranks
from .batching import Collate, num_tokens
from .entries import TrackedEntries
from .losses import Objective
from .passes import Passes
from .per_sample import GradientEngine, evaluating

logger = logging.getLogger(__name__)

MAX_TOKENS = 16_384  # tokens of a batch; more would not be faster
ENTRIES_AT_ONCE = 1 << 25  # entries of whole gradients in memory, 128 MiB
Rows = Sequence[Mapping[str, Any]]
Floats = np.ndarray[Any, np.dtype[np.float64]]


class TokenLosses(NamedTuple):
    """Losses of the terms (labelled tokens) of N samples: row n has `counts_N[n]` losses, then zeros."""

    losses_NS: Tensor
    counts_N: Tensor

    def finite_N(self) -> Tensor:
        """Whether all losses of a sample are finite (N, bool). Other samples are left out."""
        return self.losses_NS.sum(dim=1).isfinite()

    def mean(self) -> float:
        """Mean over samples of each sample's mean loss; NaN without any."""
        counts_N = self.counts_N * self.finite_N()
        return float((self.losses_NS[counts_N > 0].sum(dim=1) / counts_N[counts_N > 0]).mean())

    def excess_over(self, reference: "TokenLosses") -> float:
        """max(loss - reference, 0), averaged over all terms (DoReMi, Algorithm 1); NaN without any."""
        over_NS = (self.losses_NS - reference.losses_NS).clamp(min=0)
        finite_N = over_NS.sum(dim=1).isfinite()
        return float(over_NS[finite_N].sum() / self.counts_N[finite_N].sum())


class Meter:
    """Runs samples through a model in eval mode, in batches of similar length.

    `collate` makes a batch of samples, of at most `max_samples` and `max_tokens`. `precision` is the autocast context
    of the training, `device` the device to compute on (the parameters may wait elsewhere). A sample whose loss or
    gradient is not finite, as when fp16 overflows, is left out and counted in `left_out`.
    """

    def __init__(
        self,
        model: nn.Module,
        objective: Objective,
        collate: Collate,
        *,
        max_samples: int = 256,
        max_tokens: int = MAX_TOKENS,
        precision: Callable[[], AbstractContextManager[Any]] = nullcontext,
        device: torch.device | str = "cpu",
    ) -> None:
        self.model = model
        self.objective = objective
        self.collate = collate
        self.precision = precision
        self.device = torch.device(device)
        advice = "a smaller cutoff_len, dids_gradient_layers or dids_tracked_entries"
        self.passes = Passes("dids_tasks", advice, max_samples, max_tokens, self.device, together=True)
        self.left_out = 0

    @torch.no_grad()
    def token_losses(self, rows: Rows) -> TokenLosses:
        """The loss of each term of each sample, in float64 on the CPU."""
        lengths_N = [num_tokens(row) for row in rows]
        device = devices.exact(self.device)
        losses_NS = torch.zeros(len(rows), max(lengths_N, default=0), dtype=torch.float64, device=device)
        counts_N = torch.zeros(len(rows), dtype=torch.int64, device=device)
        with evaluating(self.model):
            for batch, (losses_J, samples_J) in self.passes.over(lengths_N, self._batch_of(rows), self._terms):
                losses_J, samples_J = devices.doubled(losses_J), samples_J.to(device)
                for place, row in enumerate(batch):
                    mine = losses_J[samples_J == place]
                    losses_NS[row, : len(mine)] = mine
                    counts_N[row] = len(mine)
        ranks.sum_over_ranks(losses_NS, counts_N)
        found = TokenLosses(losses_NS.cpu(), counts_N.cpu())
        self.left_out += int((~found.finite_N()).sum())
        return found

    def try_longest(self, rows: Rows) -> None:
        """Measure the longest samples once and drop the result, so that too little memory shows now.

        Batches are halved until one fits. Raises DidsError if a single sample does not fit.
        """
        if rows:
            with torch.no_grad(), evaluating(self.model):
                self.passes.try_longest([num_tokens(row) for row in rows], self._batch_of(rows), self._trial)

    def report(self) -> None:
        """Log the number of samples left out since the last report."""
        if self.left_out:
            logger.warning(
                "%d samples are left out of this measurement: their loss or gradient is not finite", self.left_out
            )
        self.left_out = 0

    def _terms(self, inputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        with self.precision():
            return self.objective.terms(self.model, inputs)

    def _trial(self, inputs: Mapping[str, Any]) -> None:
        self._terms(inputs)

    def _batch_of(self, rows: Rows) -> Callable[[list[int]], Mapping[str, Any]]:
        return lambda places: self.collate([dict(rows[i]) for i in places])


@dataclass(frozen=True)
class TaskMeasurement:
    """Mean loss over samples, mean gradient and diagonal Fisher (mean of squares, equation 11) of each of T tasks."""

    losses_T: Floats
    gradients_TP: Tensor
    fisher_TP: Tensor


class _Sums(NamedTuple):
    """Weighted sums over the samples of a batch: gradients (P), their squares (P), and three numbers, float64: the
    weighted sum of losses, the sum of weights, and the count of samples left out.
    """

    numbers_3: Tensor
    gradients_P: Tensor
    squares_P: Tensor


class GradientMeter(Meter):
    """Measures samples through the gradient engine, on the tracked entries. `how` is as for `Meter`."""

    def __init__(self, engine: GradientEngine, entries: TrackedEntries, collate: Collate, **how: Any) -> None:
        super().__init__(engine.model, engine.objective, collate, **how)
        self.engine = engine
        self.entries = entries

    def tasks(self, tasks: Sequence[Rows]) -> TaskMeasurement:
        """Measure every task. Each sample that has terms counts the same. NaN for a task without such samples."""
        sums_TP = torch.zeros(len(tasks), self.entries.size, device=self.device)
        squares_TP = torch.zeros_like(sums_TP)
        numbers_T3 = torch.zeros(len(tasks), 3, dtype=torch.float64, device=devices.exact(self.device))
        for task, rows in enumerate(tasks):
            self._add(rows, lambda counts_N: counts_N > 0, numbers_T3[task], sums_TP[task], squares_TP[task])
        ranks.sum_over_ranks(numbers_T3, sums_TP, squares_TP)
        losses_T, counts_T, left_out_T = numbers_T3.cpu().unbind(dim=1)
        self.left_out += int(left_out_T.sum())
        scale_T1 = counts_T.float().to(self.device)[:, None]
        return TaskMeasurement((losses_T / counts_T).numpy(), sums_TP / scale_T1, squares_TP / scale_T1)

    def domain(self, rows: Rows) -> Tensor:
        """The mean gradient (P) of a domain's samples, weighted by terms as in the training loss; 0 without any."""
        sum_P = torch.zeros(self.entries.size, device=self.device)
        numbers_3 = torch.zeros(3, dtype=torch.float64, device=devices.exact(self.device))
        self._add(rows, lambda counts_N: counts_N, numbers_3, sum_P)
        ranks.sum_over_ranks(numbers_3, sum_P)
        _, count, left_out = numbers_3.tolist()
        self.left_out += int(left_out)
        return sum_P / max(count, 1.0)

    def scores(self, rows: Rows, directions_TP: Tensor) -> tuple[Tensor, Tensor]:
        """The terms of each sample (N), and the products of its gradient with T directions, times the terms (N, T).

        All ranks get the same result. A sample whose gradient is not finite has scores that are not finite.
        """
        counts_N = torch.zeros(len(rows), dtype=torch.float32, device=self.device)
        scores_NT = torch.zeros(len(rows), len(directions_TP), device=self.device)
        lengths_N = [num_tokens(row) for row in rows]
        products = lambda batch: self._products(batch, directions_TP)  # noqa: E731
        for batch, (counts_B, scores_BT) in self.passes.over(lengths_N, self._batch_of(rows), products):
            places = torch.tensor(batch, device=self.device)
            counts_N[places], scores_NT[places] = counts_B, scores_BT
        ranks.sum_over_ranks(counts_N, scores_NT)
        return counts_N, scores_NT

    def _products(self, inputs: Mapping[str, Any], directions_TP: Tensor) -> tuple[Tensor, Tensor]:
        with self.precision():
            _, counts_N, pairs, scale_N = self.engine.run(inputs)
        counts_N, scores_NT = counts_N.float(), torch.zeros(len(counts_N), len(directions_TP), device=self.device)
        for i, (x, y) in enumerate(pairs):
            gradients_NB = self.entries.gradients(i, self.entries.inputs(i, x), y)
            scores_NT += gradients_NB @ directions_TP[:, self.entries.slices[i]].T
        return counts_N, scores_NT * (counts_N / scale_N)[:, None]

    def _add(self, rows: Rows, weigh: Callable[[Tensor], Tensor], numbers_3: Tensor, *sums_P: Tensor) -> None:
        """Add this rank's measurements to the numbers, to the sum of gradients and, if given, to the sum of squares."""
        lengths_N = [num_tokens(row) for row in rows]
        for _, found in self.passes.over(lengths_N, self._batch_of(rows), lambda batch: self._sums(batch, weigh)):
            for total, part in zip((numbers_3, *sums_P), found, strict=False):
                total += part

    def _sums(self, inputs: Mapping[str, Any], weigh: Callable[[Tensor], Tensor]) -> _Sums:
        """The sums of a batch. Only a few samples' whole gradients are in memory at a time."""
        with self.precision():
            losses_N, counts_N, pairs, scale_N = self.engine.run(inputs)
        numbers_3 = torch.zeros(3, dtype=torch.float64, device=devices.exact(self.device))
        gradients_P = torch.zeros(self.entries.size, device=self.device)
        squares_P = torch.zeros_like(gradients_P)
        at_once = max(1, ENTRIES_AT_ONCE // self.entries.size)
        for group in (slice(start, start + at_once) for start in range(0, len(losses_N), at_once)):
            some = [(x[group], y[group]) for x, y in pairs]
            blocks = [self.entries.gradients(i, self.entries.inputs(i, x), y) for i, (x, y) in enumerate(some)]
            gradients_GP = torch.cat(blocks, dim=1) / scale_N[group, None]
            squares_GP = gradients_GP.square()
            ok_G = losses_N[group].isfinite() & squares_GP.sum(dim=1).isfinite()
            weights_G = torch.where(ok_G, weigh(counts_N[group]), 0).float()
            losses_G = torch.where(ok_G, losses_N[group], 0)
            gradients_P += torch.where(ok_G[:, None], gradients_GP, 0).mul_(weights_G[:, None]).sum(dim=0)
            squares_P += torch.where(ok_G[:, None], squares_GP, 0).mul_(weights_G[:, None]).sum(dim=0)
            numbers_G3 = torch.stack([losses_G * weights_G, weights_G, (~ok_G).float()], dim=1)
            numbers_3 += devices.doubled(numbers_G3).sum(dim=0)
        return _Sums(numbers_3, gradients_P, squares_P)

    def _trial(self, inputs: Mapping[str, Any]) -> None:
        self._sums(inputs, lambda counts_N: counts_N)
