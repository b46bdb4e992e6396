"""Velocitune (Luo et al. 2024, arXiv:2411.14318): favour domains whose loss is still far from its target.

    v_j = (loss_now - loss_target) / (loss_start - loss_target)          p ∝ p · exp(v)

The targets come from a run on part of the data (`proxy_share`, half; the paper took 51%). A scaling curve a n^-b + c is
fitted to its losses and read off at the samples of the whole run. For observed tasks (the adaptation of the DIDS
paper's Appendix B) v_i = sum_j s_ij v_j, with s_ij domain i's share of the task's positive gradient similarity.

Shapes: `D` domains, `T` tasks, `U` measurements.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import minimize_scalar, nnls

from ..core.simplex import exponentiated
from .base import Array, Impact, Needs, ProxyRun, RunRecord, Signals, read_impact, read_losses, task_shares
from .checks import require_part, require_positive, require_tasks, shares_of_sizes
from .static import Fixed

_LARGEST_VELOCITY = 2.0  # an exploding loss must not put all weight on one domain
_LEAST_WAY = 1e-6  # share of the starting loss; a task nearer to its target is left out


class VelocituneState(NamedTuple):
    probabilities_D: Array
    velocity_T: Array  # v of the last update, for the log; zero for tasks left out


@dataclass(frozen=True, eq=False)
class Velocitune:
    """The mixer of the main run."""

    num_domains: int
    num_tasks: int
    targets_T: Array
    eta: float
    proxy_share: float
    needs: Needs = Needs(task_losses=True, impact=Impact("gradient", "cosine"))

    @property
    def options(self) -> Mapping[str, Any]:
        return {"eta": self.eta, "proxy_share": self.proxy_share}

    def init(self) -> VelocituneState:
        return VelocituneState(np.full(self.num_domains, 1.0 / self.num_domains), np.zeros(self.num_tasks))

    def update(self, state: VelocituneState, signals: Signals) -> tuple[Array, VelocituneState]:
        """One step of the rule above. Without a usable task p stays."""
        impact_DT, usable_T = read_impact(signals, self.num_domains, self.num_tasks)
        velocity_T = np.where(usable_T, self._velocity(read_losses(signals, self.num_tasks)), np.nan)
        usable_T = np.isfinite(velocity_T)
        velocity_T = np.where(usable_T, velocity_T, 0.0)
        if not usable_T.any():
            return state.probabilities_D, state._replace(velocity_T=velocity_T)
        velocity_D = (task_shares(impact_DT) * velocity_T).sum(axis=1)
        p_D = exponentiated(state.probabilities_D, self.eta * velocity_D)
        return p_D, VelocituneState(p_D, velocity_T)

    def _velocity(self, losses_UT: Array) -> Array:
        """v_T; NaN for a task without a loss, or that starts at its target."""
        way_T = losses_UT[0] - self.targets_T
        far_T = way_T > _LEAST_WAY * np.abs(losses_UT[0])
        velocity_T = (losses_UT[-1] - self.targets_T) / np.where(far_T, way_T, 1.0)
        return np.where(far_T, np.clip(velocity_T, -_LARGEST_VELOCITY, _LARGEST_VELOCITY), np.nan)


def predicted_loss(samples_U: Array, losses_U: Array, samples: float) -> float:
    """L(samples) of the curve a n^-b + c (a, c >= 0, b in [0.01, 3]) fitted to a run's finite losses after its start.

    For a given b the fit is linear, so it is a search over one number. With fewer than three points the last loss is
    returned, and NaN without any.

    >>> samples_U = np.array([0.0, 100.0, 400.0, 1600.0])
    >>> round(predicted_loss(samples_U, np.array([9.0, 3.0, 2.0, 1.5]), 6400), 4)
    1.25
    """
    seen_U = np.isfinite(losses_U) & (samples_U > 0)
    n_U, loss_U = samples_U[seen_U] / samples, losses_U[seen_U]
    if len(n_U) < 3:
        return float(loss_U[-1]) if len(loss_U) else float("nan")
    scale = max(float(np.abs(loss_U).max()), 1e-30)

    def fit(b: float) -> tuple[Array, float]:
        return nnls(np.stack([n_U**-b, np.ones_like(n_U)], axis=1), loss_U / scale)

    grid = np.geomspace(0.01, 3.0, 25)
    best = int(np.argmin([fit(b)[1] for b in grid]))
    low, high = grid[max(best - 1, 0)], grid[min(best + 1, len(grid) - 1)]
    found = minimize_scalar(lambda b: fit(float(b))[1], bounds=(low, high), method="bounded")
    return float(fit(float(found.x))[0].sum() * scale)  # at n = 1


def velocitune(
    num_domains: int,
    num_tasks: int,
    *,
    eta: float | None = None,
    proxy_share: float | None = None,
    proxy_runs: Sequence[RunRecord] = (),
    sizes_D: ArrayLike | None = None,
) -> Velocitune | Fixed:
    """`mix_strategy: velocitune`: a pilot run in proportion to the sizes, then the main run.

    `eta` scales v (1 as in the paper). Raises ValueError for a value that is not allowed.

    >>> velocitune(2, 1, sizes_D=[100, 300]).needs.proxy_run.name
    'pilot'
    """
    require_tasks("velocitune", num_tasks)
    eta = 1.0 if eta is None else eta
    proxy_share = 0.5 if proxy_share is None else proxy_share
    require_positive("dids_eta", eta)
    require_part("dids_proxy_share", proxy_share)
    if not proxy_runs:
        shares_D = shares_of_sizes(sizes_D, num_domains, "the pilot run of velocitune")
        pilot = Needs(task_losses=True, proxy_run=ProxyRun("pilot", proxy_share))
        return Fixed(num_domains, num_tasks, shares_D, pilot, {"eta": eta, "proxy_share": proxy_share})
    record = proxy_runs[0]
    total = float(record.samples_U[-1]) / proxy_share
    targets = [predicted_loss(record.samples_U, losses_U, total) for losses_U in record.task_losses_UT.T]
    return Velocitune(num_domains, num_tasks, np.array(targets, dtype=np.float64), eta, proxy_share)
