"""`mix_strategy: neediest`: feed the domains that are aligned with the task whose loss is highest."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from llamafactory_dids.mixers import Impact, Needs, Signals


class State(NamedTuple):
    """Arrays only: a checkpoint holds them. `probabilities_D` has to be among them."""

    probabilities_D: np.ndarray


@dataclass(frozen=True)
class Neediest:
    num_domains: int
    num_tasks: int
    eta: float
    needs: Needs = Needs(task_losses=True, impact=Impact("gradient", "cosine"))

    def init(self) -> State:
        return State(np.full(self.num_domains, 1 / self.num_domains))

    def update(self, state: State, signals: Signals) -> tuple[np.ndarray, State]:
        losses_T = np.nan_to_num(signals.task_losses_UT[-1], nan=-np.inf, posinf=-np.inf)
        alignment_D = np.nan_to_num(signals.impact_DT[:, losses_T.argmax()], posinf=0.0, neginf=0.0).clip(-1, 1)
        p_D = state.probabilities_D * np.exp(self.eta * (alignment_D - alignment_D.max()))
        p_D = 0.95 * p_D / p_D.sum() + 0.05 / self.num_domains  # so that no domain is lost for good
        return p_D / p_D.sum(), State(p_D / p_D.sum())


def neediest(num_domains: int, num_tasks: int, *, eta: float = 2.0) -> Neediest:
    """The factory that the entry point names; `eta` is `dids_eta` in YAML."""
    return Neediest(num_domains, num_tasks, eta)
