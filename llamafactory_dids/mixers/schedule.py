"""A mixture that follows a plan: `dids_schedule`, piecewise linear over the run (a curriculum, annealing).

Between two points the mixture is interpolated linearly. Before the first point and after the last it is constant. It is
set anew at each update, and needs no measurement.

Shapes: `D` domains, `K` points.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from ..core.simplex import normalize, validate_probabilities
from .base import Array, Needs, Signals
from .static import FixedState


@dataclass(frozen=True, eq=False)
class Schedule:
    num_domains: int
    num_tasks: int
    points_K: Array
    mixtures_KD: Array
    needs: Needs = Needs(progress=True)

    def init(self) -> FixedState:
        return FixedState(self._mixture(0.0))

    def update(self, state: FixedState, signals: Signals) -> tuple[Array, FixedState]:
        """The mixture at the present progress, whatever the state."""
        p_D = self._mixture(signals.progress)
        return p_D, FixedState(p_D)

    def _mixture(self, progress: float) -> Array:
        return normalize(np.array([np.interp(progress, self.points_K, p_K) for p_K in self.mixtures_KD.T]))


def schedule(
    num_domains: int,
    num_tasks: int,
    *,
    points_K: ArrayLike | None = None,
    mixtures_KD: ArrayLike | None = None,
) -> Schedule:
    """`mix_strategy: schedule`. Raises ValueError unless the points ascend and each has D probabilities.

    >>> annealed = schedule(2, 0, points_K=[0.0, 1.0], mixtures_KD=[[1.0, 0.0], [0.5, 0.5]])
    >>> annealed.update(annealed.init(), Signals(progress=0.5))[0]
    array([0.75, 0.25])
    """
    if points_K is None or mixtures_KD is None:
        raise ValueError("dids_schedule: got none, allowed: a mixture at one point of the run or more")
    points = np.array(points_K, dtype=np.float64)
    mixtures = [validate_probabilities(p_D, num_domains, "dids_schedule") for p_D in np.array(mixtures_KD)]
    ascend = np.isfinite(points).all() and (np.diff(points) > 0).all()
    if len(points) != len(mixtures) or not len(points) or not ascend:
        raise ValueError(f"dids_schedule: got the points {points.tolist()}, allowed: ascending, a mixture each")
    return Schedule(num_domains, num_tasks, points, np.stack(mixtures))
