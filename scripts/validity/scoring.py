"""How well an estimate says what the truth says, and how well anything could, given how noisy the truth is.

Shapes: `R` orders, `D` domains, `T` tasks.
"""

import itertools
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
FIRST = 3
_SIMULATIONS = 400


class Scores(NamedTuple):
    """Of an estimate, for each task (T) or their mean; NaN of a task whose truth is the same for all domains.

    `gain`: of what the truth's best three domains bring above the mean domain, the share that the estimate's first
    three bring. `pearson` is over domains. `best`: whether the truth's best domain is among the estimate's first three.
    """

    gain: Floats
    pearson: Floats
    best: Floats

    def mean(self) -> "Scores":
        """Over the tasks that can be scored."""
        return Scores(*(np.array(np.nanmean(values) if np.isfinite(values).any() else np.nan) for values in self))


def score(estimate_DT: Floats, truth_DT: Floats) -> Scores:
    """The scores of each task. Domains that the estimate holds for equal share their places among the first three.

    Raises ValueError for shapes that differ, and for an estimate that is not finite.
    """
    if estimate_DT.shape != truth_DT.shape or not np.isfinite(estimate_DT).all():
        raise ValueError(f"estimate: got shape {estimate_DT.shape}, allowed: {truth_DT.shape}, all of it finite")
    return Scores(*np.array([_of_task(e_D, t_D) for e_D, t_D in zip(estimate_DT.T, truth_DT.T, strict=True)]).T)


def _of_task(estimate_D: Floats, truth_D: Floats) -> tuple[float, float, float]:
    above_D = truth_D - truth_D.mean()
    most = _first(truth_D) @ above_D / FIRST
    if len(truth_D) <= FIRST or most <= 1e-12 * max(1.0, np.abs(truth_D).max()):
        return math.nan, math.nan, math.nan
    first_D = _first(estimate_D)
    return first_D @ above_D / FIRST / most, _pearson(estimate_D, truth_D), float(first_D[truth_D.argmax()])


def _first(values_D: Floats) -> Floats:
    """The chance of each domain to be among the first three, where equal ones draw lots."""
    if len(values_D) <= FIRST:
        return np.ones(len(values_D))
    last = np.sort(values_D)[-FIRST]
    tied_D = values_D == last
    return (values_D > last) + tied_D * (FIRST - (values_D > last).sum()) / tied_D.sum()


def _pearson(first_D: Floats, second_D: Floats) -> float:
    """0 where one of them is the same for all: it says nothing."""
    first_D, second_D = first_D - first_D.mean(), second_D - second_D.mean()
    length = math.sqrt((first_D @ first_D) * (second_D @ second_D))
    return float(first_D @ second_D / length) if length > 0 else 0.0


def reliability(truth_RDT: Floats) -> Floats:
    """How much of the mean truth's variance over domains is not noise, for each task (T), in [0, 1]; NaN with R = 1.

    The correlation of the means of two halves of the orders, over all ways to halve them, brought from half as many
    orders to all of them by the Spearman-Brown formula.
    """
    num_orders = len(truth_RDT)
    if num_orders < 2:
        return np.full(truth_RDT.shape[2], np.nan)
    half = num_orders // 2
    found_HT = []
    for one in itertools.combinations(range(num_orders), half):
        others = [order for order in range(num_orders) if order not in one]
        for other in itertools.combinations(others, half):
            halves = truth_RDT[list(one)].mean(axis=0), truth_RDT[list(other)].mean(axis=0)
            found_HT.append([_pearson(a_D, b_D) for a_D, b_D in zip(halves[0].T, halves[1].T, strict=True)])
    halves_T, longer = np.mean(found_HT, axis=0), num_orders / half
    return np.clip(longer * halves_T / (1 + (longer - 1) * np.maximum(halves_T, 0)), 0.0, 1.0)


def ceiling(truth_RDT: Floats, seed: int = 0) -> Scores:
    """What an estimate that knew the truth without its noise would score, for each task (T); NaN with R = 1.

    Simulated: the mean truth, its spread over domains made that of what is not noise, is scored against itself with
    noise of the covariance that the mean over orders has.
    """
    num_orders, mean_DT = len(truth_RDT), truth_RDT.mean(axis=0)
    if num_orders < 2:
        return Scores(*np.full((3, truth_RDT.shape[2]), np.nan))
    middle_T, share_T = mean_DT.mean(axis=0), reliability(truth_RDT)
    known_DT = middle_T + np.sqrt(share_T) * (mean_DT - middle_T)
    residual_RDT = truth_RDT - truth_RDT.mean(axis=1, keepdims=True) - (mean_DT - middle_T)
    generator = np.random.default_rng(seed)
    found = []
    for _ in range(_SIMULATIONS):
        weights_R = generator.standard_normal(num_orders) / math.sqrt(num_orders * (num_orders - 1))
        found.append(score(known_DT, known_DT + np.einsum("r,rdt->dt", weights_R, residual_RDT)))
    return Scores(*(np.mean([one[i] for one in found], axis=0) for i in range(3)))
