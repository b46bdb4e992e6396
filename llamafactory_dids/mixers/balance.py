"""Balance, of R&B (Ge et al. 2025, arXiv:2505.00358): favour domains that help the training data as a whole. No tasks.

    s_i = sum_j <g_Di, g_Dj> q_j                  p = softmax(eta s / rms(s))

q_j is domain j's share of the data, so s_i is the gain of a step along domain i's gradient for all of the data. The
next p does not start from the old p. The paper divides by the length of `s` and calls the factor lambda, which is eta
times the root of D here; our eta means the same for any number of domains. A floor keeps every domain drawn, because
the gradient of a starved domain would come from few samples.

Shapes: `D` domains.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..core.simplex import raise_to_floor, softmax
from .base import Array, Needs, Signals, read_gram
from .checks import require_positive, require_share, shares_of_sizes
from .static import FixedState


@dataclass(frozen=True, eq=False)
class Balance:
    num_domains: int
    num_tasks: int
    shares_D: Array
    eta: float
    floor: float
    needs: Needs = Needs(domain_gram=True)

    @property
    def options(self) -> Mapping[str, Any]:
        return {"eta": self.eta, "floor": self.floor}

    def init(self) -> FixedState:
        return FixedState(np.full(self.num_domains, 1.0 / self.num_domains))

    def update(self, state: FixedState, signals: Signals) -> tuple[Array, FixedState]:
        """The rule above. A domain without a gradient gets the mean score; without any gradient p stays."""
        gram_DD, usable_D = read_gram(signals, self.num_domains)
        if not usable_D.any():
            return state.probabilities_D, state
        score_D = np.array([math.fsum(row_D * self.shares_D) for row_D in gram_DD])
        score_D[~usable_D] = math.fsum(score_D[usable_D]) / usable_D.sum()
        size = math.sqrt(math.fsum(score_D**2) / self.num_domains)
        if size == 0:
            return state.probabilities_D, state
        p_D = raise_to_floor(softmax(self.eta * score_D / size), self.floor)
        return p_D, FixedState(p_D)


def balance(
    num_domains: int,
    num_tasks: int,
    *,
    eta: float | None = None,
    floor: float | None = None,
    sizes_D: ArrayLike | None = None,
) -> Balance:
    """`mix_strategy: balance`. Defaults: `eta` 1, `floor` 0.05. Raises ValueError for a value that is not allowed.

    >>> balance(2, 0, sizes_D=[100, 300]).init().probabilities_D
    array([0.5, 0.5])
    """
    eta = 1.0 if eta is None else eta
    floor = 0.05 if floor is None else floor
    require_positive("dids_eta", eta)
    require_share("dids_floor", floor)
    shares_D = shares_of_sizes(sizes_D, num_domains, "mix_strategy 'balance'")
    return Balance(num_domains, num_tasks, shares_D, eta, floor)
