"""Probabilities for the mixture as a whole: credit what complements, discount what repeats.

    q = argmin over q >= 0 of  sum_j w_j | s_j - sum_i q_i d_ij |^2_Mj        p_hat = q / sum q

with s_j and d_ij the task's and the domains' gradients at unit length in the task's metric: the step of the mixture
that leaves the least of the tasks' KL. Multiplied out, it needs the cosines alone: q A q / 2 - b q with
A = sum_j w_j <d_ij, d_kj> and b_i = sum_j w_j <d_ij, s_j>, a non-negative least-squares problem in a root of A.

Shapes: `D` domains, `T` tasks.
"""

from __future__ import annotations

import numpy as np
from scipy.optimize import nnls

from ..core.simplex import normalize
from .base import Array

_LEAST = 1e-9  # a cosine below it is rounding
_RIDGE = 1e-6  # spreads the weight evenly over domains that are the same, instead of any which way


def joint_mixture(cosines_DT: Array, domain_cosines_TDD: Array, weight_T: Array) -> Array | None:
    """p_hat, shape D; None where no domain is aligned with the weighted tasks.

    Cosines that are not finite count as zero. Weights are not negative.
    """
    weight_T = weight_T / (float(weight_T.max()) or 1.0)  # their scale does not matter, and could overflow
    products_DD = np.einsum("t,tij->ij", weight_T, _cosines(domain_cosines_TDD))
    aligned_D = _cosines(cosines_DT) @ weight_T
    if aligned_D.max() <= _LEAST:
        return None
    root_DD = _root(products_DD + _RIDGE * np.eye(len(products_DD)))
    q_D, _ = nnls(root_DD, np.linalg.solve(root_DD, aligned_D))
    return normalize(q_D) if q_D.any() else None


def _cosines(values: Array) -> Array:
    result: Array = np.where(np.isfinite(values), np.clip(values, -1.0, 1.0), 0.0)
    return result


def _root(matrix_DD: Array) -> Array:
    """The symmetric square root of a positive matrix; what rounding made negative is lifted to the ridge."""
    values_D, vectors_DD = np.linalg.eigh((matrix_DD + matrix_DD.T) / 2.0)
    root_DD: Array = (vectors_DD * np.sqrt(np.maximum(values_D, _RIDGE))) @ vectors_DD.T
    return root_DD
