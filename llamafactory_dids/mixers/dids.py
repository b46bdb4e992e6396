"""Domain Impact-aware Data Sampling, DIDS (equations 13 and 16, Algorithm 1; method.md, sections 3 to 5).

The utility of domain i is the effect of one of its samples on all tasks, in nats. The mixture moves towards useful
domains, as far as the utilities can be told from their errors:

    start     p_i = share of the tasks' observed samples that are nearest to domain i, each task counting alike
    impact    I_ij = mean over samples of <g, g_Sj> in the metric F_j^(-1/2): what an AdamW step on i does for j
    utility   U_i = sum_j w_j I_ij,   w_j = 1 / T
    return    V_i = a_i (U_i - sum_k p_k a_k U_k)         a_i: weight of a sample of i in the loss, sum_k p_k a_k = 1
    error     s_i^2 = a_i^2 w' C_i w    C_i the covariance of domain i's impacts, from the spread of its samples
    pooled    V_i, s_i^2 averaged over the windows since p last moved, weighed by 1 / s_i^2
    chance    n_q = m (1 - c + 2.576 sqrt c)^3            m = sum_i q_i s_i^2,  c = 2/9 sum_i (q_i s_i^2)^2 / m^2
    signal    v = max(0, var_q V - n_q)                   the larger one of q = p and q_i ∝ p_i^2
    evidence  z_i = V_i / sd V * v / (v + s_i^2)          mean and sd over p
    update    p_hat_i ∝ p_i exp(eta z_i)                exponentiated: it starts from p, so evidence adds up
    average   p ← beta p + (1 - beta) p_hat             beta weighs the old p
    floor     p ← the mixture nearest to p, in KL divergence, that is at least f / D everywhere

The return is the derivative of a step's gain by p_i. A step's gradient is a mean over labelled tokens, so one more
sample with a long answer changes it more than one with a short answer, for good or bad.

The evidence has no scale, so an update moves p alike for any metric and any size of the gradients. If the domains
differ by no more than noise, p stays, and the returns are kept for the next update: several windows together find a
small difference. A domain without a sample has no evidence. A task is usable if all its impacts are finite and not all
are zero; other tasks have weight zero. Without a usable task p stays.

This is `dids_preset: default`. It departs from the paper where the paper's formulas contradict each other or lost in
experiments. `dids_readings.py` has the other readings of the paper, and the options that switch between them.

Shapes: `D` domains, `T` tasks, `U` measurements so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..core import simplex
from ..core.trajectory import potential
from .base import Array, Bools, Impact, Needs, Signals, read_covariance, read_impact, read_losses, read_weights
from .evidence import evidence, leverages, pooled, returns


class DidsState(NamedTuple):
    """The mixture, and the terms of the last update, zero if there were none."""

    probabilities_D: Array
    utility_D: Array  # U_i = sum_j I_ij w_j (equation 13)
    task_potential_T: Array  # fall that each loss has left (equation 15)
    task_weight_T: Array  # w_j; at the start 1 / T
    held_return_D: Array  # V_i, pooled over the windows since p last moved
    held_variance_D: Array  # s_i^2 of the pooled V_i; infinite if nothing is known

    @property
    def held(self) -> tuple[Array, Array]:
        """The pooled returns and their variances."""
        return self.held_return_D, self.held_variance_D


@dataclass(frozen=True, eq=False)
class Dids:
    """The method. `start_D` is the mixture before training, without a floor.

    `options` goes to config.yaml, and `warning` is a line to show before training.
    """

    num_domains: int
    num_tasks: int
    start_D: Array
    eta: float = 0.25
    ema_beta: float = 0.1
    floor: float = 0.05
    needs: Needs = Needs(impact=Impact("preconditioned", "dot", errors=True), task_samples=True)
    options: Mapping[str, Any] = field(default_factory=dict)
    warning: str | None = None

    def init(self) -> DidsState:
        p_D = self.above_floor(self.start_D.copy())
        return DidsState(p_D, np.zeros(self.num_domains), np.zeros(self.num_tasks), self.alike(), *self.nothing())

    def update(self, state: DidsState, signals: Signals) -> tuple[Array, DidsState]:
        """One update of the mixture. A task of weight zero can still be usable."""
        impact_DT, usable_T = self.read(signals)
        weight_T, potential_T = self.weigh_tasks(signals, usable_T)
        utility_D, p_D, held = utilities(impact_DT, weight_T), state.probabilities_D, state.held
        if usable_T.any():
            scores_D, held = self.score(signals, state, utility_D, weight_T, usable_T)
            p_D = self.step(p_D, scores_D)
        return p_D, DidsState(p_D, utility_D, potential_T, weight_T, *held)

    def read(self, signals: Signals) -> tuple[Array, Bools]:
        """`(impact_DT, usable_T)`."""
        return read_impact(signals, self.num_domains, self.num_tasks)

    def weigh_tasks(self, signals: Signals, usable_T: Bools) -> tuple[Array, Array]:
        """`(weight_T, potential_T)`."""
        return np.where(usable_T, self.alike(), 0.0), self.potentials(signals)

    def score(
        self, signals: Signals, state: DidsState, utility_D: Array, weight_T: Array, usable_T: Bools
    ) -> tuple[Array, tuple[Array, Array]]:
        """The scores (D) that move p, here the evidence; and the (returns, variances) held for the next update."""
        p_D = state.probabilities_D
        variance_D = variances(read_covariance(signals, self.num_domains, usable_T), weight_T)
        weights_D = np.where(np.isfinite(variance_D), read_weights(signals, self.num_domains), 0.0)
        leverage_D = leverages(p_D, weights_D)
        seen_D, error_D = leverage_D > 0, np.full(self.num_domains, np.inf)
        error_D[seen_D] = leverage_D[seen_D] ** 2 * variance_D[seen_D]
        held = pooled(state.held, (returns(p_D, utility_D, leverage_D), error_D))
        scores_D = evidence(p_D, *held)
        return scores_D, self.nothing() if scores_D.any() else held

    def step(self, p_D: Array, scores_D: Array) -> Array:
        """The next p: the moving average of p and p_hat, above the floor."""
        return self.above_floor(simplex.blend(p_D, self.propose(p_D, scores_D), self.ema_beta))

    def alike(self) -> Array:
        """Equal weights of the tasks (T)."""
        return np.full(self.num_tasks, 1 / self.num_tasks)

    def nothing(self) -> tuple[Array, Array]:
        """The (returns, variances) held if no window was seen since p moved."""
        return np.zeros(self.num_domains), np.full(self.num_domains, np.inf)

    def potentials(self, signals: Signals) -> Array:
        """The fall that each task's loss has left (T), for the log; zeros if no losses were measured."""
        if signals.task_losses_UT is None:
            return np.zeros(self.num_tasks)
        return np.array([potential(losses_U) for losses_U in read_losses(signals, self.num_tasks).T])

    def propose(self, p_D: Array, scores_D: Array) -> Array:
        """p_hat."""
        return simplex.exponentiated(p_D, self.eta * scores_D)

    def above_floor(self, p_D: Array) -> Array:
        """p raised to at least f / D everywhere.

        The floor is not mixed in. An update that starts from p would keep every share that was mixed in: after 16
        updates with a floor of 0.05, only 44% of the mixture that the updates found would be left.
        """
        return simplex.raise_to_floor(p_D, self.floor)


def utilities(impact_DT: Array, weight_T: Array) -> Array:
    """Equation 13: U_i = sum_j I_ij w_j, shape D.

    >>> utilities(np.array([[0.2, 0.4], [0.0, -0.1]]), np.array([0.5, 0.5]))
    array([ 0.3 , -0.05])
    """
    utility_D: Array = (impact_DT * weight_T).sum(axis=1)
    return utility_D


def variances(covariance_DTT: Array, weight_T: Array) -> Array:
    """s_i^2, the variance of each utility as an estimate (D); infinite if the covariance is.

    >>> variances(np.array([np.eye(2), 4 * np.eye(2)]), np.array([0.5, 0.5]))
    array([0.5, 2. ])
    """
    known_D: Bools = np.asarray(np.isfinite(covariance_DTT).all(axis=(1, 2)))
    finite_DTT = np.where(known_D[:, None, None], covariance_DTT, 0.0)
    variance_D = np.maximum(np.einsum("dij,i,j->d", finite_DTT, weight_T, weight_T), 0.0)
    return np.where(known_D, variance_D, np.inf)
