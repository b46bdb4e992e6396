"""The evidence that domains differ: what one more of a domain's samples does for a step, and how far noise explains it.

The formulas are those of `dids.py`: return V, error s, chance n, signal v, evidence z (method.md, section 5).

Noise exceeds n_q in one window of 200 (Wilson and Hilferty 1931, for a chi-square variable of 2 / 9c degrees of
freedom). The weights p find a difference of rarely drawn domains, the weights p^2 one of often drawn domains: s_i^2
goes by one over p_i, so p^2 weighs each V_i^2 by its precision, and rarely drawn domains add no noise.
"""

from __future__ import annotations

import math

import numpy as np

from ..core import simplex
from .base import Array

_FURTHEST = 3.0  # evidence is clipped at so many deviations from the mean
_CHANCE = 2.576  # normal deviate of what counts as chance: noise exceeds it in one window of 200
_LEAST = 1e-300  # least variance that can be inverted


def leverages(p_D: Array, weights_D: Array) -> Array:
    """a_i, weight of a sample of each domain (D), with mean 1 over the drawn samples; zeros if no sample has weight.

    >>> leverages(np.array([0.5, 0.5]), np.array([1.0, 3.0]))
    array([0.5, 1.5])
    """
    largest = weights_D.max(initial=0.0)
    if largest == 0:
        return np.zeros_like(weights_D)
    scaled_D = weights_D / largest
    mean = math.fsum(p_D * scaled_D)
    return scaled_D / mean if mean > 0 else np.zeros_like(weights_D)


def returns(p_D: Array, utility_D: Array, leverage_D: Array) -> Array:
    """V_i = dU / dp_i (D), with U the utility of a step that draws by p. The mean of V over p is zero.

    >>> returns(np.array([0.5, 0.5]), np.array([1.0, 0.0]), np.array([0.5, 1.5]))
    array([ 0.375, -0.375])
    """
    known_D = np.where(leverage_D > 0, utility_D, 0.0)
    found_D: Array = leverage_D * (known_D - math.fsum(p_D * leverage_D * known_D))
    return found_D


def pooled(one: tuple[Array, Array], other: tuple[Array, Array]) -> tuple[Array, Array]:
    """The mean of two estimates, weighted by the inverse variance. Each is (means, variances), shape D.

    >>> pooled((np.array([1.0]), np.array([1.0])), (np.array([4.0]), np.array([0.5])))
    (array([3.]), array([0.33333333]))
    """
    precision_D, other_D = (1 / np.maximum(variance_D, _LEAST) for _, variance_D in (one, other))
    total_D = precision_D + other_D
    known_D = total_D > 0
    part_D = np.divide(other_D, total_D, out=np.zeros_like(total_D), where=known_D)
    variance_D = np.divide(1.0, total_D, out=np.full_like(total_D, np.inf), where=known_D)
    return one[0] + part_D * (other[0] - one[0]), variance_D


def evidence(p_D: Array, utility_D: Array, variance_D: Array) -> Array:
    """z_i: each return in deviations from the mean, times its reliability v / (v + s_i^2) (D).

    Mean and deviation weigh the known domains by p, and v is the signal by p or by p^2. Zeros if no two domains can be
    told apart. Clipped at three deviations: if one domain is nearly all that is drawn, another lies many deviations
    from the mean.

    >>> evidence(np.array([0.5, 0.5]), np.array([1.0, 0.0]), np.array([0.0, 0.0]))
    array([ 1., -1.])
    >>> evidence(np.array([0.5, 0.5]), np.array([1.0, 0.0]), np.array([1.0, 1.0]))
    array([0., 0.])
    """
    known_D = np.isfinite(variance_D)
    shares_D = np.where(known_D, p_D, 0.0)
    largest = np.abs(utility_D[known_D]).max(initial=0.0)
    if largest == 0 or not shares_D.any():
        return np.zeros_like(utility_D)
    shares_D = simplex.normalize(shares_D)
    scaled_D = np.where(known_D, utility_D / largest, 0.0)  # a square of huge utilities would overflow
    with np.errstate(over="ignore", invalid="ignore"):  # nearly equal returns can have very different errors
        error_D = np.where(known_D, np.minimum(variance_D / largest / largest, 1e300), 0.0)
    centred_D = scaled_D - math.fsum(shares_D * scaled_D)
    signal = max(_signal(weights_D, centred_D, error_D) for weights_D in (shares_D, simplex.normalize(shares_D**2)))
    if signal <= 1e-24:  # no more than rounding
        return np.zeros_like(utility_D)
    reliability_D = np.where(known_D, signal / (signal + error_D), 0.0)
    deviation = math.sqrt(math.fsum(shares_D * centred_D**2))
    return np.clip(centred_D / deviation * reliability_D, -_FURTHEST, _FURTHEST)


def _signal(weights_D: Array, centred_D: Array, error_D: Array) -> float:
    """The variance of the returns beyond what chance explains; negative or zero if chance explains it."""
    by_chance_D = weights_D * error_D
    mean = math.fsum(by_chance_D)
    spread = 2 / 9 * (math.hypot(*by_chance_D) / mean) ** 2 if mean > 0 else 0.0
    chance = mean * (1 - spread + _CHANCE * math.sqrt(spread)) ** 3
    return math.fsum(weights_D * centred_D**2) - chance
