"""`mix_strategy: dids` with all its options: the method of `dids.py`, or another reading of the paper.

`default` is the method. `paper` keeps to the paper's formulas where they can work. `literal` has the formulas as
printed and `authors` the formulas as released, both for comparison. Each part can be switched by itself (method.md,
sections 4 and 5). `dids_options.py` has the presets, and says which values go together.

    task_weights   alike      1 / T
                   raw        l_c + l_p, at least 0: the last fall of the loss, and the fall that is left
                   printed, authors   l_c + l_p as printed, and as released
    update         evidence        p_hat ∝ p exp(eta z), as in `dids.py`
                   exponentiated   p_hat ∝ p exp(eta U)
                   standardized    p_hat = softmax((U - mean) / deviation); p if U is zero
                   softmax         p_hat = softmax(U)
                   linear          p_hat = U / sum U, with 1e-7 for a negative U
    divide_by_p    U is divided by the old p first (equation 16)

An update that forgets p has the floor mixed in: p ← (1 - f) p + f / D.

Shapes: `D` domains, `T` tasks, `U` measurements so far.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from ..core import simplex
from .base import Array, Bools, Impact, Needs, Signals, read_losses
from .checks import histogram, require_tasks, shares_of_sizes
from .dids import Dids, DidsState
from .dids_options import PRESET_WARNINGS, is_the_method, resolve

_LEAST_UTILITY = 1e-7  # the linear update puts it in place of a negative utility
_AUTHORS_MIN_POINTS = 5


class Reading(Dids):
    """Another reading of the method. `options` has the final value of each option, and selects each piece."""

    def read(self, signals: Signals) -> tuple[Array, Bools]:
        """`(impact_DT, usable_T)`. If the losses weigh the tasks, a task without a loss now is not usable."""
        impact_DT, usable_T = super().read(signals)
        if self.options["task_weights"] != "alike":
            usable_T = usable_T & np.isfinite(read_losses(signals, self.num_tasks)[-1])
        return impact_DT, usable_T

    def weigh_tasks(self, signals: Signals, usable_T: Bools) -> tuple[Array, Array]:
        """`(weight_T, potential_T)` by l_c + l_p (equation 13; method.md, section 4). An unusable task weighs zero."""
        potential_T = self.potentials(signals)
        kind = self.options["task_weights"]
        if kind == "alike":
            return usable_T / max(1, int(usable_T.sum())), potential_T
        losses_UT = read_losses(signals, self.num_tasks)
        if kind == "authors":
            potential_T[np.isfinite(losses_UT).sum(axis=0) < _AUTHORS_MIN_POINTS] = 1.0
        progress_T = _last_drop(losses_UT) + potential_T
        if kind == "raw":
            progress_T = np.maximum(progress_T, 0.0)
        return np.where(usable_T, progress_T, 0.0), potential_T

    def score(
        self, signals: Signals, state: DidsState, utility_D: Array, weight_T: Array, usable_T: Bools
    ) -> tuple[Array, tuple[Array, Array]]:
        """The scores (D) that move p, and the held estimates. Only the update `evidence` holds any."""
        if self.options["divide_by_p"]:
            utility_D = utility_D / np.maximum(state.probabilities_D, 1e-3 / self.num_domains)
        if self.options["update"] == "evidence":
            return super().score(signals, state, utility_D, weight_T, usable_T)
        return utility_D, self.nothing()

    def step(self, p_D: Array, scores_D: Array) -> Array:
        """The next p. A standardized utility that is zero everywhere leaves p as it is: the domains do not differ."""
        if self.options["update"] == "standardized" and not scores_D.any():
            return p_D
        return super().step(p_D, scores_D)

    def propose(self, p_D: Array, scores_D: Array) -> Array:
        """p_hat."""
        if self.options["update"] == "standardized":
            return simplex.softmax(simplex.standardize(scores_D))
        if self.options["update"] == "softmax":
            return simplex.softmax(scores_D)
        if self.options["update"] == "linear":
            return simplex.normalize(np.where(scores_D > 0, scores_D, _LEAST_UTILITY))
        return super().propose(p_D, scores_D)

    def above_floor(self, p_D: Array) -> Array:
        """p with at least f / D everywhere: raised if the update starts from p, mixed in if the update forgets p."""
        if self.options["update"] in ("evidence", "exponentiated"):
            return super().above_floor(p_D)
        return simplex.mix_floor(p_D, self.floor)


def _last_drop(losses_UT: Array) -> Array:
    """l_c: fall of each loss between its last two finite measurements; 0 without two."""
    seen = [losses_U[np.isfinite(losses_U)][-2:] for losses_U in losses_UT.T]
    return np.array([pair[0] - pair[1] if len(pair) == 2 else 0.0 for pair in seen])


def dids(
    num_domains: int,
    num_tasks: int,
    *,
    preset: str = "default",
    impact: str | None = None,
    impact_normalize: str | None = None,
    task_weights: str | None = None,
    trajectory: bool | None = None,
    update: str | None = None,
    eta: float | None = None,
    divide_by_p: bool | None = None,
    ema_beta: float | None = None,
    floor: float | None = None,
    init: str | None = None,
    clustered: bool = False,
    task_samples_TD: ArrayLike | None = None,
    sizes_D: ArrayLike | None = None,
) -> Dids:
    """`mix_strategy: dids`. None means the preset's value.

    `sizes_D` is needed for `init` proportional only, `task_samples_TD` for `init` importance only. Raises ValueError,
    naming the YAML key, for a value that is not allowed.

    >>> dids(4, 2, preset="paper").init().probabilities_D
    array([0.25, 0.25, 0.25, 0.25])
    """
    require_tasks("dids", num_tasks)
    options = resolve(
        preset,
        clustered=clustered,
        impact=impact,
        impact_normalize=impact_normalize,
        task_weights=task_weights,
        trajectory=trajectory,
        update=update,
        eta=eta,
        divide_by_p=divide_by_p,
        ema_beta=ema_beta,
        floor=floor,
        init=init,
    )
    start_D = _start(options["init"], num_domains, num_tasks, task_samples_TD, sizes_D)
    make = Dids if is_the_method(options) else Reading
    return make(
        num_domains,
        num_tasks,
        start_D,
        eta=options["eta"],
        ema_beta=options["ema_beta"],
        floor=options["floor"],
        needs=_needs(options),
        options=options,
        warning=PRESET_WARNINGS.get(preset),
    )


def _start(
    init: str, num_domains: int, num_tasks: int, task_samples_TD: ArrayLike | None, sizes_D: ArrayLike | None
) -> Array:
    """The mixture before training (D)."""
    if init == "importance":
        return histogram(task_samples_TD, num_tasks, num_domains, "dids_init 'importance'")
    if init == "proportional":
        return shares_of_sizes(sizes_D, num_domains, "dids_init 'proportional'")
    return np.full(num_domains, 1.0 / num_domains)


def _needs(options: Mapping[str, Any]) -> Needs:
    return Needs(
        task_losses=options["task_weights"] != "alike",
        impact=Impact(options["impact"], options["impact_normalize"], errors=options["update"] == "evidence"),
        task_samples=options["init"] == "importance",
    )
