"""Domain Impact-aware Data Sampling (equations 13 and 16, Algorithm 1; method.md, sections 3 to 5).

    U_i = sum_j I_ij w_j      p_hat = update(U, p)      p ← beta p + (1 - beta) p_hat      p ← above the floor f / D

With `mixture: by_task` each task has a p of its own, from its own impacts, and their mean by w is drawn from: what
helps many tasks cannot crowd out what helps one.

`default` departs from the paper where its formulas contradict each other or lost in experiments; `paper`
keeps to them where they can work; `literal` and `authors` are as printed and as released, to be measured
against. Each part can be switched by itself.

Shapes: `D` domains, `T` tasks, `U` measurements so far.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import ArrayLike

from ..core import simplex
from ..core.trajectory import potential
from .base import Array, Bools, Impact, Needs, Signals, read_impact, read_losses
from .checks import histograms, require_tasks, shares_of_sizes
from .dids_options import PRESET_WARNINGS, resolve
from .joint import joint_mixture

_LEAST_UTILITY = 1e-7  # what the linear update puts in place of a negative one
_AUTHORS_MIN_POINTS = 5


class DidsState(NamedTuple):
    """The probabilities, of each task where it has its own, and, for the log, the last update's terms: zeros before it
    and where not measured."""

    probabilities_D: Array
    probabilities_TD: Array
    utility_D: Array
    task_potential_T: Array
    task_weight_T: Array


def dids(
    num_domains: int,
    num_tasks: int,
    *,
    preset: str = "default",
    mixture: str | None = None,
    impact: str | None = None,
    impact_normalize: str | None = None,
    task_weights: str | None = None,
    trajectory: bool | None = None,
    update: str | None = None,
    eta: float | None = None,
    temperature: float | None = None,
    divide_by_p: bool | None = None,
    ema_beta: float | None = None,
    floor: float | None = None,
    init: str | None = None,
    clustered: bool = False,
    task_samples_TD: ArrayLike | None = None,
    sizes_D: ArrayLike | None = None,
) -> Dids:
    """`mix_strategy: dids`. None means the preset's value; `sizes_D` is needed for `init` proportional only, and
    `task_samples_TD` for `init` importance.

    Raises ValueError, naming the YAML key, for a value that is not allowed.
    """
    require_tasks("dids", num_tasks)
    options = resolve(
        preset,
        clustered=clustered,
        mixture=mixture,
        impact=impact,
        impact_normalize=impact_normalize,
        task_weights=task_weights,
        trajectory=trajectory,
        update=update,
        eta=eta,
        temperature=temperature,
        divide_by_p=divide_by_p,
        ema_beta=ema_beta,
        floor=floor,
        init=init,
    )
    if options["init"] == "importance":
        initial_D, initial_TD = histograms(task_samples_TD, num_tasks, num_domains, "dids_init 'importance'")
    else:
        initial_D = np.full(num_domains, 1.0 / num_domains)
        if options["init"] == "proportional":
            initial_D = shares_of_sizes(sizes_D, num_domains, "dids_init 'proportional'")
        initial_TD = np.tile(initial_D, (num_tasks, 1))
    initial_TD = np.stack([_floored(p_D, options) for p_D in initial_TD])
    initial_D = _floored(initial_D, options)
    return Dids(num_domains, num_tasks, options, initial_D, initial_TD, PRESET_WARNINGS.get(preset))


@dataclass(frozen=True, eq=False)
class Dids:
    num_domains: int
    num_tasks: int
    options: Mapping[str, Any]
    initial_D: Array
    initial_TD: Array
    warning: str | None = None

    @property
    def needs(self) -> Needs:
        impact = Impact(self.options["impact"], self.options["impact_normalize"])
        joint = self.options["mixture"] == "joint"
        return Needs(
            task_losses=self.options["task_weights"] != "alike",
            impact=impact,
            domain_cosines=joint,
            task_samples=self.options["init"] == "importance",
        )

    def init(self) -> DidsState:
        zeros_T = np.zeros(self.num_tasks)
        start = self.initial_D.copy(), self.initial_TD.copy()
        return DidsState(*start, np.zeros(self.num_domains), zeros_T, zeros_T.copy())

    def update(self, state: DidsState, signals: Signals) -> tuple[Array, DidsState]:
        """One update. Without a usable task p stays as it is; a usable task of weight zero is still
        usable."""
        impact_DT, usable_T = read_impact(signals, self.num_domains, self.num_tasks)
        weight_T, potential_T, usable_T = self._weigh_tasks(signals, usable_T)
        utility_D = (impact_DT * weight_T).sum(axis=1)
        p_D, p_TD = state.probabilities_D, state.probabilities_TD
        if self.options["mixture"] == "by_task":
            p_TD = np.stack([self._step(*task) for task in zip(p_TD, impact_DT.T, usable_T, strict=True)])
            p_D = _mean_of_tasks(p_TD, weight_T) if weight_T.any() else p_D
        elif self.options["mixture"] == "joint":
            assert signals.domain_cosines_TDD is not None, "as `needs` asks"
            p_D = self._blend(p_D, joint_mixture(impact_DT, signals.domain_cosines_TDD, weight_T))
        else:
            p_D = self._step(p_D, utility_D, bool(usable_T.any()))
        return p_D, DidsState(p_D, p_TD, utility_D, potential_T, weight_T)

    def _step(self, p_D: Array, utility_D: Array, usable: bool) -> Array:
        return self._blend(p_D, self._rule(utility_D, p_D)) if usable else p_D

    def _blend(self, p_D: Array, p_hat_D: Array | None) -> Array:
        """The moving average, above the floor; p as it is where there is no p_hat."""
        if p_hat_D is None:
            return p_D
        return _floored(simplex.blend(p_D, p_hat_D, self.options["ema_beta"]), self.options)

    def _rule(self, utility_D: Array, p_D: Array) -> Array:
        if self.options["divide_by_p"]:
            utility_D = utility_D / np.maximum(p_D, 1e-3 / self.num_domains)
        update: Update = _RULES[self.options["update"]]
        return update(utility_D, p_D, self.options)

    def _weigh_tasks(self, signals: Signals, usable_T: Bools) -> tuple[Array, Array, Bools]:
        """`(weight_T, potential_T, usable_T)`; where losses count, a task without one now is not usable."""
        kind = self.options["task_weights"]
        if signals.task_losses_UT is None and not self.needs.task_losses:
            return _alike(usable_T), np.zeros(self.num_tasks), usable_T
        losses_UT = read_losses(signals, self.num_tasks)
        potential_T = np.array([potential(losses_U) for losses_U in losses_UT.T])
        if kind == "alike":
            return _alike(usable_T), potential_T, usable_T
        if kind == "authors":
            potential_T[np.isfinite(losses_UT).sum(axis=0) < _AUTHORS_MIN_POINTS] = 1.0
        usable_T = usable_T & np.isfinite(losses_UT[-1])
        progress_T = _last_drop(losses_UT) + potential_T
        return _weights(kind, progress_T, losses_UT[-1], usable_T), potential_T, usable_T


def _floored(p_D: Array, options: Mapping[str, Any]) -> Array:
    """`p_D` with at least floor / D everywhere.

    An update that starts from p would remember a share that is mixed in, and lose that share again each time:
    after 16 updates, 44% would be left of what a floor of 0.05 was mixed into.
    """
    if options.get("update") == "exponentiated":
        return simplex.raise_to_floor(p_D, options["floor"])
    return simplex.mix_floor(p_D, options["floor"])


def _weights(kind: str, progress_T: Array, loss_T: Array, usable_T: Bools) -> Array:
    """Task weights from l_c + l_p (equation 13; method.md, section 4); zero for tasks that are left out."""
    if kind in ("printed", "authors"):
        return np.where(usable_T, progress_T, 0.0)
    progress_T = np.where(usable_T, np.maximum(progress_T, 0.0), 0.0)
    if kind == "raw":
        return progress_T
    rate_T = np.where(usable_T, progress_T / np.fmax(loss_T, 1e-3), 0.0)
    if not rate_T.any():
        return _alike(usable_T)
    return 0.5 * _alike(usable_T) + 0.5 * simplex.normalize(rate_T)


def _mean_of_tasks(p_TD: Array, weight_T: Array) -> Array:
    """Of the tasks' own mixtures, by their weights; summed alike whatever the order of the domains."""
    weight_T = simplex.normalize(weight_T)
    mean_D: Array = np.array([math.fsum(weight_T * p_T) for p_T in p_TD.T])
    clipped_D: Array = mean_D.clip(p_TD.min(axis=0), p_TD.max(axis=0))  # by rounding it may miss a floor that all keep
    return clipped_D


def _alike(usable_T: Bools) -> Array:
    return usable_T.astype(np.float64) / max(1, int(usable_T.sum()))


def _last_drop(losses_UT: Array) -> Array:
    """l_c: how much the loss fell since the last finite measurement; 0 without two."""
    seen = [losses_U[np.isfinite(losses_U)][-2:] for losses_U in losses_UT.T]
    return np.array([pair[0] - pair[1] if len(pair) == 2 else 0.0 for pair in seen])


def _exponentiated(utility_D: Array, p_D: Array, options: Mapping[str, Any]) -> Array:
    return simplex.exponentiated(p_D, options["eta"] * utility_D)


def _standardized(utility_D: Array, p_D: Array, options: Mapping[str, Any]) -> Array:
    return simplex.softmax(simplex.standardize(utility_D) / options["temperature"])


def _softmax(utility_D: Array, p_D: Array, options: Mapping[str, Any]) -> Array:
    return simplex.softmax(utility_D)


def _linear(utility_D: Array, p_D: Array, options: Mapping[str, Any]) -> Array:
    return simplex.normalize(np.where(utility_D > 0, utility_D, _LEAST_UTILITY))


Update: TypeAlias = Callable[[Array, Array, Mapping[str, Any]], Array]
_RULES: dict[str, Update] = {  # UPDATES of the options
    "exponentiated": _exponentiated,
    "standardized": _standardized,
    "softmax": _softmax,
    "linear": _linear,
}
