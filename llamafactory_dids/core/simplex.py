"""Probability vectors over domains, in float64.

Sums are by `math.fsum`, which rounds correctly in any order. A permutation of the domains therefore permutes the result
to the last bit, even if exponentials would amplify a difference in rounding.

Shapes: `D` domains.
"""

from __future__ import annotations

import math
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]

_TOLERANCE = 1e-3  # how far given probabilities may be from a sum of one
_TINY = 1e-30  # a probability below it can no longer grow back by multiplication


def normalize(weights_D: Array) -> Array:
    """`weights_D`, non-negative with a positive sum, scaled to sum to one.

    >>> normalize(np.array([1.0, 3.0]))
    array([0.25, 0.75])
    """
    scaled_D: Array = weights_D / weights_D.max()  # a sum of huge weights would overflow
    return scaled_D / math.fsum(scaled_D)


def softmax(scores_D: Array) -> Array:
    """exp(scores) scaled to sum to one, for finite scores of any size.

    >>> softmax(np.array([0.0, np.log(3.0)])).round(6)
    array([0.25, 0.75])
    """
    return normalize(np.exp(scores_D - scores_D.max()))


def exponentiated(probabilities_D: Array, scores_D: Array) -> Array:
    """p * exp(scores) scaled to sum to one: a softmax that starts from `probabilities_D`.

    >>> exponentiated(np.array([0.25, 0.75]), np.array([0.0, 0.0]))
    array([0.25, 0.75])
    >>> exponentiated(np.array([0.25, 0.75]), np.array([np.log(3.0), 0.0])).round(6)
    array([0.5, 0.5])
    """
    return softmax(np.log(np.maximum(probabilities_D, _TINY)) + scores_D)


def standardize(values_D: Array) -> Array:
    """(values - mean) / standard deviation (over D, not D - 1); zeros if all values are equal up to rounding.

    >>> standardize(np.array([1.0, 2.0, 3.0])).round(4)
    array([-1.2247,  0.    ,  1.2247])
    """
    centred_D = values_D - math.fsum(values_D) / len(values_D)
    spread = np.abs(centred_D).max()
    if spread <= 1e-12 * np.abs(values_D).max():
        return np.zeros_like(values_D)
    scaled_D: Array = centred_D / spread
    return scaled_D / math.sqrt(math.fsum(scaled_D**2) / len(scaled_D))


def blend(old_D: Array, new_D: Array, beta: float) -> Array:
    """The moving average beta * old + (1 - beta) * new. In equation 16 beta is the weight of the *old*.

    >>> blend(np.array([1.0, 0.0]), np.array([0.0, 1.0]), beta=0.25)
    array([0.25, 0.75])
    """
    return beta * old_D + (1.0 - beta) * new_D


def mix_floor(probabilities_D: Array, floor: float) -> Array:
    """(1 - floor) * p + floor / D: no domain falls below floor / D.

    >>> mix_floor(np.array([1.0, 0.0]), floor=0.2)
    array([0.9, 0.1])
    """
    mixed_D: Array = (1.0 - floor) * probabilities_D + floor / len(probabilities_D)
    return mixed_D


def raise_to_floor(probabilities_D: Array, floor: float) -> Array:
    """The p nearest to `probabilities_D` in KL divergence with every p_i at least floor / D.

    Probabilities below floor / D are raised to it; the others keep their proportions. If none is below, p is unchanged.

    >>> raise_to_floor(np.array([0.8, 0.19, 0.01]), floor=0.3).round(4)
    array([0.7273, 0.1727, 0.1   ])
    """
    least = floor / len(probabilities_D)
    low_D = np.zeros(len(probabilities_D), dtype=bool)
    raised_D = probabilities_D
    while (below_D := raised_D < least).any():  # raising some may push others below
        low_D |= below_D
        if low_D.all():  # possible by rounding, with a floor of one
            return np.full(len(low_D), least)
        scale = (1.0 - least * low_D.sum()) / math.fsum(probabilities_D[~low_D])
        raised_D = np.where(low_D, least, scale * probabilities_D)
    return raised_D


def mean_over(samples_U: Array, probabilities_UD: Array) -> Array:
    """The mean of mixtures (D), each weighted by the number of samples until the next.

    The last mixture has no next one, so it counts only if it is the only one.

    >>> mean_over(np.array([0, 300, 400]), np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]]))
    array([0.75, 0.25])
    """
    weights_U = np.diff(np.asarray(samples_U, dtype=np.float64))
    if len(weights_U) == 0:
        return normalize(np.asarray(probabilities_UD[0], dtype=np.float64))
    return normalize(weights_U @ np.asarray(probabilities_UD[:-1], dtype=np.float64))


def validate_probabilities(values_D: ArrayLike, num_domains: int, key: str = "dids_probs") -> Array:
    """One probability for each domain, as float64, scaled to sum to exactly one.

    Raises ValueError, under the name `key`, for another count, a value that is not from 0 to 1, or a sum that differs
    from one by more than 1e-3.

    >>> validate_probabilities([0.3, 0.7], num_domains=2)
    array([0.3, 0.7])
    """
    p_D = np.array(values_D, dtype=np.float64)
    if p_D.shape != (num_domains,):
        raise ValueError(f"{key}: got {p_D.size} values, allowed: one for each of the {num_domains} domains")
    if not ((p_D >= 0) & (p_D <= 1 + _TOLERANCE)).all():  # huge ones would overflow in the sum
        raise ValueError(f"{key}: got {p_D.tolist()}, allowed: probabilities from 0 to 1")
    if abs(math.fsum(p_D) - 1.0) > _TOLERANCE:
        raise ValueError(f"{key}: got values that sum to {math.fsum(p_D):.6g}, allowed: a sum of 1")
    return normalize(p_D)
