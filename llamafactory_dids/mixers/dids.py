"""Domain Impact-aware Data Sampling, DIDS (equations 13 and 16, Algorithm 1; method.md, sections 3 to 5).

Each task j has a mixture p_j of its own, and the run draws from their mean. So a domain that helps many tasks cannot
crowd out a domain that helps one.

    start     p_ij = share of task j's observed samples that are nearest to domain i; 1 / D where that is not known
    impact    I_ij = cosine of the gradients of i and j in the metric F_j^(-1/2): what an AdamW step on i does for j
    update    p_hat_ij ∝ p_ij exp(eta I_ij)                exponentiated: it starts from p, so evidence adds up
    average   p_j ← beta p_j + (1 - beta) p_hat_j          beta weighs the old p
    floor     p_j ← the mixture nearest to p_j, in KL divergence, that is at least f / D everywhere
    mean      p = sum_j w_j p_j,   w_j = 1 / T             every task counts alike

A task is usable if all its impacts are finite and one is not zero. One that is not keeps its mixture and its weight, so
a measurement that fails does not take what the task needs out of p. Without a usable task p stays as it is.

This is `dids_preset: default`. It departs from the paper where the paper's formulas contradict each other or lost in
experiments; `dids_readings.py` has the other readings of the paper, and the options that switch between them.

Shapes: `D` domains, `T` tasks, `U` measurements so far.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..core import simplex
from ..core.trajectory import potential
from .base import Array, Bools, Impact, Needs, Signals, read_impact, read_losses


class DidsState(NamedTuple):
    """The mixture, each task's own, and the terms of the last update, zero where there are none."""

    probabilities_D: Array
    probabilities_TD: Array
    utility_D: Array  # U_i = sum_j I_ij w_j (equation 13)
    task_potential_T: Array  # how much each loss may still fall (equation 15)
    task_weight_T: Array  # w_j; at the start 1 / T


@dataclass(frozen=True, eq=False)
class Dids:
    """The method. `start_D` is the mixture before training, and `start_TD` each task's own; neither has a floor yet.

    `options` is what config.yaml holds of this mixer, and `warning` a line that is shown before training.
    """

    num_domains: int
    num_tasks: int
    start_D: Array
    start_TD: Array
    eta: float = 1.0
    ema_beta: float = 0.1
    floor: float = 0.05
    needs: Needs = Needs(impact=Impact("preconditioned", "cosine"), task_samples=True)
    options: Mapping[str, Any] = field(default_factory=dict)
    warning: str | None = None

    def init(self) -> DidsState:
        p_D = self.above_floor(self.start_D.copy())
        p_TD = np.stack([self.above_floor(start_D) for start_D in self.start_TD])
        weight_T = np.full(self.num_tasks, 1 / self.num_tasks)
        return DidsState(p_D, p_TD, np.zeros(self.num_domains), np.zeros(self.num_tasks), weight_T)

    def update(self, state: DidsState, signals: Signals) -> tuple[Array, DidsState]:
        """One update of each usable task's mixture, and their mean."""
        impact_DT, usable_T = self.read(signals)
        weight_T, potential_T = self.weigh_tasks(signals, usable_T)
        weight_T = np.where(usable_T, weight_T, state.task_weight_T)
        tasks = zip(state.probabilities_TD, impact_DT.T, usable_T, strict=True)
        p_TD = np.stack([self.step(p_D, impact_D) if usable else p_D for p_D, impact_D, usable in tasks])
        p_D = mean_of_tasks(p_TD, weight_T) if usable_T.any() and weight_T.any() else state.probabilities_D
        return p_D, DidsState(p_D, p_TD, utilities(impact_DT, weight_T), potential_T, weight_T)

    def read(self, signals: Signals) -> tuple[Array, Bools]:
        """`(impact_DT, usable_T)`."""
        return read_impact(signals, self.num_domains, self.num_tasks)

    def weigh_tasks(self, signals: Signals, usable_T: Bools) -> tuple[Array, Array]:
        """`(weight_T, potential_T)`. The potential is for the log, and zero where no losses were measured."""
        weight_T = np.full(self.num_tasks, 1 / self.num_tasks)
        if signals.task_losses_UT is None:
            return weight_T, np.zeros(self.num_tasks)
        losses_UT = read_losses(signals, self.num_tasks)
        return weight_T, np.array([potential(losses_U) for losses_U in losses_UT.T])

    def step(self, p_D: Array, impact_D: Array) -> Array:
        """The next p of one task."""
        return self.approach(p_D, self.propose(p_D, impact_D))

    def propose(self, p_D: Array, impact_D: Array) -> Array:
        """p_hat."""
        return simplex.exponentiated(p_D, self.eta * impact_D)

    def approach(self, p_D: Array, p_hat_D: Array) -> Array:
        """The moving average of p and p_hat, above the floor."""
        return self.above_floor(simplex.blend(p_D, p_hat_D, self.ema_beta))

    def above_floor(self, p_D: Array) -> Array:
        """p with at least f / D everywhere.

        The floor is not mixed in. An update that starts from p would remember a share that was mixed in, and lose it
        again each time: after 16 updates, 44% would be left of what a floor of 0.05 was mixed into.
        """
        return simplex.raise_to_floor(p_D, self.floor)


def utilities(impact_DT: Array, weight_T: Array) -> Array:
    """Equation 13: U_i = sum_j I_ij w_j, shape D."""
    utility_D: Array = (impact_DT * weight_T).sum(axis=1)
    return utility_D


def mean_of_tasks(p_TD: Array, weight_T: Array) -> Array:
    """The mean of the tasks' mixtures by their weights, the same whatever the order of the domains."""
    weight_T = simplex.normalize(weight_T)
    mean_D: Array = np.array([math.fsum(weight_T * p_T) for p_T in p_TD.T])
    clipped_D: Array = mean_D.clip(p_TD.min(axis=0), p_TD.max(axis=0))  # by rounding it may miss a floor that all keep
    return clipped_D
