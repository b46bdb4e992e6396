"""A fixed mixture: `dids_probs`, one probability for each domain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from numpy.typing import ArrayLike

from ..core.simplex import validate_probabilities
from .base import Array, Needs, Signals


class FixedState(NamedTuple):
    probabilities_D: Array


@dataclass(frozen=True, eq=False)
class Fixed:
    """The mixer that always returns `probabilities_D`."""

    num_domains: int
    num_tasks: int
    probabilities_D: Array
    needs: Needs = Needs()
    options: Mapping[str, Any] = field(default_factory=dict)

    def init(self) -> FixedState:
        return FixedState(self.probabilities_D.copy())

    def update(self, state: FixedState, signals: Signals) -> tuple[Array, FixedState]:
        return state.probabilities_D, state


def static(
    num_domains: int,
    num_tasks: int,
    *,
    probabilities_D: ArrayLike | None = None,
) -> Fixed:
    """`mix_strategy: static`. Raises ValueError unless given D probabilities that sum to 1, within 1e-3.

    >>> static(2, 0, probabilities_D=[0.25, 0.75]).init().probabilities_D
    array([0.25, 0.75])
    """
    if probabilities_D is None:
        raise ValueError("dids_probs: got none, allowed: one probability for each domain")
    return Fixed(num_domains, num_tasks, validate_probabilities(probabilities_D, num_domains))
