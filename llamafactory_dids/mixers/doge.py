"""DoGE (Fan et al. 2024b, arXiv:2310.15393): a proxy run finds weights, and the main run uses their mean.

    W_i = sum_j <g_Di, g_Sj>        p ∝ p · exp(eta W)        main run: the mean of p over the proxy run

This is equation 8 and Algorithm 1 with the observed tasks as the target (its out-of-domain form). Our eta is its eta /
mu. With the paper's inner product, eta depends on the size of the gradients; with the cosine (our default, as in dga)
it does not.

Shapes: `D` domains, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..core.simplex import exponentiated
from .base import Array, Impact, Needs, ProxyRun, RunRecord, Signals, read_impact
from .checks import require_choice, require_part, require_positive, require_tasks
from .static import Fixed

SIMILARITIES = ("dot", "cosine")


class DogeState(NamedTuple):
    probabilities_D: Array
    alignment_D: Array  # W of the last update, for the log


@dataclass(frozen=True)
class DogeProxy:
    """The mixer of the proxy run."""

    num_domains: int
    num_tasks: int
    similarity: str
    eta: float
    proxy_share: float

    @property
    def needs(self) -> Needs:
        return Needs(impact=Impact("gradient", self.similarity), proxy_run=ProxyRun("proxy", self.proxy_share))

    @property
    def options(self) -> Mapping[str, Any]:
        return {"similarity": self.similarity, "eta": self.eta, "proxy_share": self.proxy_share}

    def init(self) -> DogeState:
        return DogeState(np.full(self.num_domains, 1.0 / self.num_domains), np.zeros(self.num_domains))

    def update(self, state: DogeState, signals: Signals) -> tuple[Array, DogeState]:
        """One step of the rule above. Without a usable task p stays."""
        impact_DT, usable_T = read_impact(signals, self.num_domains, self.num_tasks)
        if not usable_T.any():
            return state.probabilities_D, state._replace(alignment_D=np.zeros(self.num_domains))
        alignment_D = impact_DT.sum(axis=1)
        p_D = exponentiated(state.probabilities_D, self.eta * alignment_D)
        return p_D, DogeState(p_D, alignment_D)


def doge(
    num_domains: int,
    num_tasks: int,
    *,
    similarity: str = "cosine",
    eta: float | None = None,
    proxy_share: float | None = None,
    proxy_runs: Sequence[RunRecord] = (),
    sizes_D: ArrayLike | None = None,
) -> DogeProxy | Fixed:
    """`mix_strategy: doge`. Raises ValueError for a value that is not allowed.

    `eta` defaults to 4 / T, as in dga. `proxy_share` (1) is the proxy run's share of the main run's samples.

    >>> doge(2, 1).needs.proxy_run.name
    'proxy'
    """
    require_tasks("doge", num_tasks)
    eta = 4.0 / num_tasks if eta is None else eta
    proxy_share = 1.0 if proxy_share is None else proxy_share
    require_choice("dids_similarity", similarity, SIMILARITIES)
    require_positive("dids_eta", eta)
    require_part("dids_proxy_share", proxy_share)
    proxy = DogeProxy(num_domains, num_tasks, similarity, eta, proxy_share)
    return Fixed(num_domains, num_tasks, proxy_runs[0].mean_D(), options=proxy.options) if proxy_runs else proxy
