"""Online Data Mixing (Albalak et al. 2023, arXiv:2312.02406): a bandit that draws domains with a high training loss.

    R_i ← alpha R_i + (1 - alpha) loss_i / p_i                         for domains drawn since the last update
    eps_t = min(1 / D, sqrt(ln D / (D t)))           p_i = (1 - D eps_t) softmax(eps_(t-1) R)_i + eps_t

This is Algorithm 1 with t the samples drawn so far: a window is many turns of the bandit, observed together. It uses no
tasks. It is not in the package's own list: an entry point registers it, like a strategy of another package.

Shapes: `D` domains.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..core.simplex import normalize, softmax
from .base import Array, Needs, Signals

ALPHA = 0.9  # weight of the old reward
_LARGEST = 1e60


class OdmState(NamedTuple):
    probabilities_D: Array
    reward_D: Array
    exploration: Array  # eps of the last update, shape (1,)


@dataclass(frozen=True)
class Odm:
    num_domains: int
    num_tasks: int
    needs: Needs = Needs(domain_losses=True)

    def init(self) -> OdmState:
        even = 1.0 / self.num_domains
        return OdmState(np.full(self.num_domains, even), np.zeros(self.num_domains), np.array([even]))

    def update(self, state: OdmState, signals: Signals) -> tuple[Array, OdmState]:
        """One step of the rule above. If no domain has a loss, p stays."""
        losses_D = signals.domain_losses_D
        assert losses_D is not None and losses_D.shape == (self.num_domains,), "as `needs` asks"
        drawn_D = np.isfinite(losses_D)
        if not drawn_D.any():
            return state.probabilities_D, state
        seen_D = np.clip(np.where(drawn_D, losses_D, 0.0), -_LARGEST, _LARGEST) / state.probabilities_D
        reward_D = np.where(drawn_D, ALPHA * state.reward_D + (1.0 - ALPHA) * seen_D, state.reward_D)
        least = self._exploration(signals.samples_seen)
        softened_D = softmax(state.exploration[0] * reward_D)
        p_D = normalize((1.0 - self.num_domains * least) * softened_D + least)
        return p_D, OdmState(p_D, reward_D, np.array([least]))

    def _exploration(self, turns: int) -> float:
        """eps_t, the least probability of a domain."""
        return min(1.0, math.sqrt(self.num_domains * math.log(self.num_domains) / max(turns, 1))) / self.num_domains


def odm(num_domains: int, num_tasks: int) -> Odm:
    """`mix_strategy: odm`.

    >>> odm(2, 0).init().probabilities_D
    array([0.5, 0.5])
    """
    return Odm(num_domains, num_tasks)
