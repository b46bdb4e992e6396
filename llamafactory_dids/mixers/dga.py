"""Dynamic Gradient Alignment (Fan et al. 2024a, arXiv:2410.02498): favour domains whose gradient helps the tasks.

    a_i = sum_j <g_Sj, g_Di>        p_hat ∝ p · exp(eta a)        p ← beta p + (1 - beta) p_hat

The target set is the observed samples of all tasks. With the paper's inner product, eta depends on the size of the
gradients; with the cosine (our default) it does not.

Shapes: `D` domains, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from ..core.simplex import blend, exponentiated
from .base import Array, Impact, Needs, Signals, read_impact
from .checks import require_choice, require_positive, require_share, require_tasks

SIMILARITIES = ("dot", "cosine")


class DgaState(NamedTuple):
    probabilities_D: Array
    alignment_D: Array  # a of the last update, for the log


@dataclass(frozen=True, eq=False)
class Dga:
    """The rule above, which is also that of DoGE's proxy run, without the moving average."""

    num_domains: int
    num_tasks: int
    eta: float
    ema_beta: float
    needs: Needs
    options: Mapping[str, Any] = field(default_factory=dict)

    def init(self) -> DgaState:
        return DgaState(np.full(self.num_domains, 1.0 / self.num_domains), np.zeros(self.num_domains))

    def update(self, state: DgaState, signals: Signals) -> tuple[Array, DgaState]:
        """One step of the rule above. Without a usable task p stays."""
        impact_DT, usable_T = read_impact(signals, self.num_domains, self.num_tasks)
        if not usable_T.any():
            return state.probabilities_D, state._replace(alignment_D=np.zeros(self.num_domains))
        alignment_D = impact_DT.sum(axis=1)
        p_hat_D = exponentiated(state.probabilities_D, self.eta * alignment_D)
        p_D = blend(state.probabilities_D, p_hat_D, self.ema_beta)
        return p_D, DgaState(p_D, alignment_D)


def dga(
    num_domains: int,
    num_tasks: int,
    *,
    similarity: str = "cosine",
    eta: float | None = None,
    ema_beta: float | None = None,
) -> Dga:
    """`mix_strategy: dga`. Raises ValueError for a value that is not allowed.

    `eta` defaults to 4 / T: a is a sum over the tasks, where `dids` takes 4 times their mean. `ema_beta`, the weight of
    the old p, defaults to 0.1.

    >>> dga(2, 1).init().probabilities_D
    array([0.5, 0.5])
    """
    require_tasks("dga", num_tasks)
    eta = 4.0 / num_tasks if eta is None else eta
    ema_beta = 0.1 if ema_beta is None else ema_beta
    require_choice("dids_similarity", similarity, SIMILARITIES)
    require_positive("dids_eta", eta)
    require_share("dids_ema_beta", ema_beta)
    options = {"similarity": similarity, "eta": eta, "ema_beta": ema_beta}
    return Dga(num_domains, num_tasks, eta, ema_beta, Needs(impact=Impact("gradient", similarity)), options)
