"""The decay of a task's loss over the updates, and the fall that is left (section 4.3, equation 15).

L(t) = a e^(-b t) + c with a, c >= 0. For a given b the fit is a non-negative least squares in (a, c), so the whole fit
is a search over one bounded number (variable projection). It cannot diverge on noise, as a free fit in (a, b, c) does.
It costs about 60 tiny least squares, a few milliseconds.

Times `t` are in updates: 0 is the measurement before training. Shapes: `U` measurements so far.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar, nnls

B_RANGE = (0.02, 3.0)  # per update: a slower decay looks like a line, a faster one is over after one update
MIN_POINTS = 4  # fewer points do not tell a decay's end from its slope
NOTABLE = 0.01  # share of a loss; a loss that changes less is level
Heading: TypeAlias = Literal["above its lowest", "falling", "level"]
_GRID_SIZE = 33


class Decay(NamedTuple):
    """L(t) = a e^(-b t) + c: `a` and `c` in units of the loss, `b` per update."""

    a: float
    b: float
    c: float

    def at(self, t: float) -> float:
        """The loss at time `t`, in updates."""
        return self.a * math.exp(-self.b * t) + self.c


def fit_decay(losses_U: Sequence[float] | NDArray[np.floating]) -> Decay:
    """The least-squares decay with a, c >= 0 and b in [0.02, 3] through `losses_U`, at t = 0 .. U-1.

    Losses that are not finite are skipped. Any decay fits fewer than three losses; the result is then flat, at the last
    finite loss (0 without any, or if it is negative).

    >>> decay = fit_decay([3.0, 2.0, 1.5, 1.25, 1.125])
    >>> round(decay.a, 3), round(decay.b, 3), round(decay.c, 3)
    (2.0, 0.693, 1.0)
    """
    t_U, seen_U = _finite(losses_U)
    scale = float(np.abs(seen_U).max(initial=0.0))
    if len(seen_U) < 3 or scale == 0.0:
        return Decay(0.0, B_RANGE[0], max(0.0, float(seen_U[-1])) if len(seen_U) else 0.0)
    a, b, c = _search(t_U.astype(np.float64), seen_U / scale)
    return Decay(a * scale, b, c * scale)


def potential(losses_U: Sequence[float] | NDArray[np.floating]) -> float:
    """Equation 15's l_p: the fall of the fitted loss over the next update, never negative.

    With fewer than four finite losses, the drop between the last two; 0 with fewer than two.

    >>> round(potential([3.0, 2.0, 1.5, 1.25]), 3)
    0.125
    """
    _, seen_U = _finite(losses_U)
    if len(seen_U) < 2:
        return 0.0
    if len(seen_U) < MIN_POINTS:
        return max(0.0, float(seen_U[-2] - seen_U[-1]))
    decay, now = fit_decay(losses_U), len(losses_U) - 1
    return max(0.0, decay.at(now) - decay.at(now + 1))


def heading(last: float, lowest: float, fall: float) -> Heading:
    """The direction of a loss. `lowest` is the minimum of all measurements, `last` included.

    `fall` is the fall since the previous measurement, or the fitted fall over the next update.

    >>> heading(1.0, lowest=1.0, fall=0.2)
    'falling'
    """
    if last > lowest * (1 + 2 * NOTABLE):
        return "above its lowest"
    return "falling" if fall > NOTABLE * last else "level"


def _finite(losses_U: Sequence[float] | NDArray[np.floating]) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """The times and values of the finite losses. Each keeps its own time."""
    values_U = np.asarray(losses_U, dtype=np.float64)
    t_U = np.flatnonzero(np.isfinite(values_U))
    return t_U, values_U[t_U]


def _search(t_U: NDArray[np.float64], losses_U: NDArray[np.float64]) -> Decay:
    def solve(log_b: float) -> tuple[NDArray[np.float64], float]:
        design_U2 = np.stack([np.exp(-math.exp(log_b) * t_U), np.ones_like(t_U)], axis=1)
        solution_2, residual = nnls(design_U2, losses_U)
        return solution_2, float(residual)

    # The residual can have several valleys in b. A grid finds the right one, the bounded search its bottom.
    grid = np.linspace(math.log(B_RANGE[0]), math.log(B_RANGE[1]), _GRID_SIZE)
    residuals = [solve(log_b)[1] for log_b in grid]
    best = int(np.argmin(residuals))
    bounds = (float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _GRID_SIZE - 1)]))
    found = minimize_scalar(lambda log_b: solve(log_b)[1], bounds=bounds, method="bounded", options={"xatol": 1e-7})
    log_b = float(found.x) if found.fun < residuals[best] else float(grid[best])
    (a, c), _ = solve(log_b)
    return Decay(float(a), min(max(math.exp(log_b), B_RANGE[0]), B_RANGE[1]), float(c))
