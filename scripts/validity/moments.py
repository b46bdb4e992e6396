"""A weighted mean of per-sample gradients with the variance of the mean, summed as samples come."""

from typing import NamedTuple

import torch
from torch import Tensor


class Mean(NamedTuple):
    """A domain's mean gradient (P), or those of D domains (D, P), and of each entry the variance that it has as a mean
    of so few samples."""

    gradient: Tensor
    variance: Tensor


class Moments:
    """Sums over samples of n g, n^2 g and n^2 g^2, where n are a sample's terms and g its mean gradient.

    The mean is sum(n g) / sum(n), as the training loss weighs samples. With w = n / sum(n) its variance is estimated by
    sum(w^2 (g - mean)^2) / (1 - sum(w^2)): with equal weights the sample variance over the number of samples.
    """

    def __init__(self) -> None:
        self._terms = self._terms_squared = 0.0
        self._once_P = self._twice_P = self._squares_P = torch.zeros(())

    def add(self, gradients_GP: Tensor, counts_G: Tensor) -> None:
        """Samples without any terms count nothing."""
        n_G = counts_G.to(gradients_GP)
        n2_G = n_G.square()
        self._terms += float(n_G.sum())
        self._terms_squared += float(n2_G.sum())
        self._once_P = self._once_P.to(n_G) + n_G @ gradients_GP
        self._twice_P = self._twice_P.to(n_G) + n2_G @ gradients_GP
        self._squares_P = self._squares_P.to(n_G) + n2_G @ gradients_GP.square()

    def mean(self) -> Mean:
        """Of what has been added so far; a single sample has no variance that one could tell, and gets 0."""
        terms = max(self._terms, 1.0)
        mean_P, left = self._once_P / terms, 1 - self._terms_squared / terms**2
        if left < 1e-9:
            return Mean(mean_P, torch.zeros_like(mean_P))
        deviations_P = self._squares_P - 2 * mean_P * self._twice_P + mean_P.square() * self._terms_squared
        return Mean(mean_P, deviations_P.clamp(min=0) / terms**2 / left)
