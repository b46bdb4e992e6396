"""DoReMi (Xie et al. 2023, arXiv:2305.10429): group DRO on a proxy model against a reference model.

    lambda = max(loss of the proxy - loss of the reference, 0), a token         p ∝ p · exp(eta lambda)
    p ← (1 - c) p + c / D                                    main run: the mean of p over the proxy run

This is Algorithm 1 with eta 1 and c 1e-3 (`floor`). It compares the two models on the training domains (`target`
domains), or on the observed tasks (`target` tasks, the adaptation of the DIDS paper's Appendix B). For tasks, lambda_i
= sum_j s_ij lambda_j: lambda_j is the excess loss on task j, and s_ij is domain i's share of the task's positive
gradient similarity.

Shapes: `D` domains, `T` tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from ..core.simplex import exponentiated, mix_floor
from .base import Array, Impact, Needs, ProxyRun, RunRecord, Signals, read_excess, read_impact, task_shares
from .checks import require_choice, require_part, require_positive, require_share, require_tasks, shares_of_sizes
from .static import Fixed

TARGETS = ("tasks", "domains")


class DoremiState(NamedTuple):
    probabilities_D: Array
    excess_D: Array  # lambda of the last update, for the log


@dataclass(frozen=True)
class DoremiProxy:
    """The mixer of the proxy run."""

    num_domains: int
    num_tasks: int
    target: Literal["tasks", "domains"]
    eta: float
    floor: float
    proxy_share: float

    @property
    def needs(self) -> Needs:
        impact = Impact("gradient", "cosine") if self.target == "tasks" else None
        return Needs(impact=impact, excess_losses=self.target, proxy_run=ProxyRun("proxy", self.proxy_share))

    @property
    def options(self) -> Mapping[str, Any]:
        return {"target": self.target, "eta": self.eta, "floor": self.floor, "proxy_share": self.proxy_share}

    def init(self) -> DoremiState:
        return DoremiState(np.full(self.num_domains, 1.0 / self.num_domains), np.zeros(self.num_domains))

    def update(self, state: DoremiState, signals: Signals) -> tuple[Array, DoremiState]:
        """One step of the rule above. Without a usable task or domain p stays."""
        excess_D = self._excess(signals)
        if excess_D is None:
            return state.probabilities_D, state._replace(excess_D=np.zeros(self.num_domains))
        p_D = mix_floor(exponentiated(state.probabilities_D, self.eta * excess_D), self.floor)
        return p_D, DoremiState(p_D, excess_D)

    def _excess(self, signals: Signals) -> Array | None:
        """lambda of each domain (D); None if nothing could be measured."""
        if self.target == "domains":
            excess_D, usable_D = read_excess(signals.excess_losses_D, self.num_domains)
            return excess_D if usable_D.any() else None
        impact_DT, usable_T = read_impact(signals, self.num_domains, self.num_tasks)
        excess_T, measured_T = read_excess(signals.excess_losses_T, self.num_tasks)
        usable_T = usable_T & measured_T
        if not usable_T.any():
            return None
        shared_DT = task_shares(impact_DT) * np.where(usable_T, excess_T, 0.0)
        excess_D = np.asarray(shared_DT.sum(axis=1), dtype=np.float64)
        return excess_D


def doremi(
    num_domains: int,
    num_tasks: int,
    *,
    target: Literal["tasks", "domains"] = "tasks",
    eta: float | None = None,
    floor: float | None = None,
    proxy_share: float | None = None,
    proxy_runs: Sequence[RunRecord] = (),
    sizes_D: ArrayLike | None = None,
) -> DoremiProxy | Fixed:
    """`mix_strategy: doremi`: a reference run in proportion to the sizes, a proxy run, then the main run.

    `proxy_share` (1) is the share of the main run's samples for each of the first two. Raises ValueError for a value
    that is not allowed.

    >>> doremi(2, 1, sizes_D=[100, 300]).needs.proxy_run.name
    'reference'
    """
    eta = 1.0 if eta is None else eta
    floor = 1e-3 if floor is None else floor
    proxy_share = 1.0 if proxy_share is None else proxy_share
    require_choice("dids_doremi_target", target, TARGETS)
    if target == "tasks":
        require_tasks("doremi", num_tasks)
    require_positive("dids_eta", eta)
    require_share("dids_floor", floor)
    require_part("dids_proxy_share", proxy_share)
    proxy = DoremiProxy(num_domains, num_tasks, target, eta, floor, proxy_share)
    if not proxy_runs:
        shares_D = shares_of_sizes(sizes_D, num_domains, "the reference run of doremi")
        reference = Needs(proxy_run=ProxyRun("reference", proxy_share, keeps_losses=target))
        return Fixed(num_domains, num_tasks, shares_D, reference, proxy.options)
    if len(proxy_runs) == 1:
        return proxy
    return Fixed(num_domains, num_tasks, proxy_runs[1].mean_D(), options=proxy.options)
