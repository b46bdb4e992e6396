"""Mean score of each domain's samples, with the error of this mean.

A sample's scores are the inner products of its gradient with the tasks' (`fisher.directions`). Scores are linear in the
gradient, so their mean is unbiased for any number of samples. The length of a mean gradient, as in a cosine, also holds
the noise of the mean, and makes a rarely drawn domain look less aligned.

    m_i = sum_s w_s x_s / sum_s w_s                       w: a sample's weight in training, by its terms (tokens)
    n_i = (sum_s w_s)^2 / sum_s w_s^2                     effective number of samples
    R_i = sum_s w_s^2 (x_s - m_i)(x_s - m_i)'
    S   = sum_i R_i / sum_i W_i (1 - 1 / n_i)             W_i = sum_s w_s; the covariance of one term's score
    C_i = (R_i / sum_s w_s^2 + k S / W_i) / (n_i - 1 + k)     the covariance of m_i, over the T tasks
    a_i = mean of w_s                                     mean weight of a sample

A sample's score is a mean over its terms, so its covariance is S / w_s, and that of m_i is S / W_i. S is pooled over
the domains, and steadies C_i of a domain with few samples. If the covariances of the scores themselves were pooled,
domains with long answers would get the spread of short ones, which can be many times their own.

Shapes: `N` samples, `D` domains, `T` tasks.
"""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import devices

Array: TypeAlias = NDArray[np.float64]

PRIOR = 4.0  # k: number of samples that the pooled spread counts as
_LEAST = 1e-300
_FEWEST = 1e-6  # degrees of freedom; fewer are rounding


class Estimates(NamedTuple):
    """Mean scores (D, T), the covariance of each domain's means over the tasks (D, T, T), mean weight of a sample (D).

    A domain without a sample has an infinite covariance and a weight of zero. All covariances are infinite if no domain
    has two samples, since nothing then tells their spread.
    """

    mean_DT: Array
    covariance_DTT: Array
    weight_D: Array


class Moments:
    """Sums over samples, float64, from which the means and covariances follow. Scores that are not finite are left out.

    >>> moments = Moments(num_domains=2, num_tasks=1)
    >>> moments.add(torch.tensor([0, 0]), torch.tensor([1.0, 1.0]), torch.tensor([[0.0], [1.0]]))
    >>> moments.estimates().mean_DT, moments.estimates().weight_D
    (array([[0.5],
           [0. ]]), array([1., 0.]))
    """

    def __init__(self, num_domains: int, num_tasks: int, device: torch.device | str = "cpu") -> None:
        where = devices.exact(torch.device(device))
        shapes = {"counts": (), "weights": (), "squares": (), "scores": (num_tasks,), "twice": (num_tasks,)}
        shapes["products"] = (num_tasks, num_tasks)
        self.sums = {
            name: torch.zeros((num_domains, *shape), dtype=torch.float64, device=where)
            for name, shape in shapes.items()
        }

    def add(self, domains_N: Tensor, weights_N: Tensor, scores_NT: Tensor) -> None:
        """Add samples. `scores_NT` are the scores times the weights."""
        weights_N, scores_NT = devices.doubled(weights_N), devices.doubled(scores_NT)
        kept_N = scores_NT.sum(dim=1).isfinite() & weights_N.isfinite() & (weights_N > 0)
        domains_N = domains_N.to(weights_N.device)[kept_N]
        weights_N, scores_NT = weights_N[kept_N], scores_NT[kept_N]
        parts = {
            "counts": torch.ones_like(weights_N),
            "weights": weights_N,
            "squares": weights_N.square(),
            "scores": scores_NT,
            "twice": weights_N[:, None] * scores_NT,
            "products": scores_NT[:, :, None] * scores_NT[:, None, :],
        }
        for name, part in parts.items():
            self.sums[name].index_add_(0, domains_N, part)

    def estimates(self) -> Estimates:
        """The means and covariances by the formulas above."""
        number_D, weight_D, square_D, score_DT, twice_DT, product_DTT = (x.cpu().numpy() for x in self.sums.values())
        seen_D = weight_D > 0
        mean_DT = score_DT / np.maximum(weight_D, _LEAST)[:, None]
        crossed_DTT = mean_DT[:, :, None] * twice_DT[:, None, :]
        squares_DTT = mean_DT[:, :, None] * mean_DT[:, None, :] * square_D[:, None, None]
        spread_DTT = product_DTT - crossed_DTT - crossed_DTT.transpose(0, 2, 1) + squares_DTT
        count_D = np.where(seen_D, weight_D**2 / np.maximum(square_D, _LEAST), 0.0)
        free_D = np.where(seen_D, np.maximum(count_D - 1, 0.0), 0.0)
        terms_D = weight_D * free_D / np.maximum(count_D, 1.0)
        own_DTT = spread_DTT / np.maximum(square_D, _LEAST)[:, None, None]
        with np.errstate(over="ignore"):  # next to no weight, or no domain with two samples
            term_TT = spread_DTT[seen_D].sum(axis=0) / max(terms_D.sum(), _LEAST)
            common_DTT = PRIOR * term_TT / np.maximum(weight_D, _LEAST)[:, None, None]
        covariance_DTT = (own_DTT + common_DTT) / (free_D + PRIOR)[:, None, None]
        covariance_DTT[~seen_D | (free_D.sum() < _FEWEST)] = np.inf
        return Estimates(mean_DT, covariance_DTT, weight_D / np.maximum(number_D, 1.0))
