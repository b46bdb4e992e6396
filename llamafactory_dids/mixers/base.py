"""The contract between the strategies and what measures for them: pure functions and a NamedTuple state.

A mixer says what it `needs`; `training/observer.py` measures exactly that and makes the `Signals`. The mixer never sees
a model, a dataset or a name of a domain or task, does no I/O and draws no random numbers.

A strategy's file exports a factory, (num_domains, num_tasks, keyword options) -> Mixer. An option is named as
its YAML key is, without `dids_`. What no YAML file can say is given to a factory that has a keyword for it:

- `sizes_D`: the number of samples of each domain; of its tokens, where `dids_share_of` says so
- `probabilities_D`: what `dids_probs` says
- `points_K`, `mixtures_KD`: what `dids_schedule` says, each point a share of the run
- `task_samples_TD`: how many of the observed samples of each task are nearest to each domain's centroid
- `clustered`: whether the run makes its domains itself, so that features of the samples are there
- `proxy_runs`: the RunRecord of each proxy run so far. An offline strategy's factory gives the mixer of the next
  run: while its `needs.proxy_run` is set, that run is made and its record appended, and the factory asked again.

Shapes: `D` domains, `T` tasks, `U` measurements so far.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from ..core.simplex import mean_over

Array: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

# What core.fisher.impact accepts; spelled out because this package does without torch (a test compares them).
IMPACT_KINDS = ("preconditioned", "fisher", "gradient", "kl")
IMPACT_NORMALIZATIONS = ("cosine", "sum", "none", "dot", "authors")

_LARGEST = 1e60  # signals are cut off here, so that no product of two of them overflows


class Impact(NamedTuple):
    """The arguments of `core.fisher.impact`. With `errors` the impacts come with their covariance, for `dot` alone."""

    kind: str
    normalize: str
    errors: bool = False


class ProxyRun(NamedTuple):
    """A run of the proxy model that an offline strategy wants before the main one.

    `share` of the main run's training samples; `keeps_losses`, of `tasks` or of `domains`: the trained model's loss
    on each token is kept, as what later runs' `excess_losses` are measured against.
    """

    name: str
    share: float = 1.0
    keeps_losses: Literal["tasks", "domains"] | None = None


class RunRecord(NamedTuple):
    """What a finished run leaves: a row for each measurement, at 0 samples first, and the p drawn with from then on."""

    samples_U: Array
    probabilities_UD: Array
    task_losses_UT: Array

    def mean_D(self) -> Array:
        """The mean of p over the samples that were drawn, up to the last update."""
        return mean_over(self.samples_U, self.probabilities_UD)


@dataclass(frozen=True)
class Needs:
    """What a mixer wants measured before each of its updates; with `proxy_run`, it is the mixer of that run.

    `excess_losses`, of `tasks` or of `domains`: max(loss now - loss of the run that kept its losses, 0), averaged
    over tokens. `progress`: how far the run is, for which nothing is measured. `task_samples`: the factory wants
    `task_samples_TD`.
    """

    task_losses: bool = False
    impact: Impact | None = None
    domain_gram: bool = False
    domain_losses: bool = False
    excess_losses: Literal["tasks", "domains"] | None = None
    proxy_run: ProxyRun | None = None
    progress: bool = False
    task_samples: bool = False

    @property
    def measures(self) -> bool:
        """Whether anything is to be measured at all, be it how far the run is, so that there are updates."""
        return bool(self.task_losses or self.gradients or self.domain_losses or self.excess_losses or self.progress)

    @property
    def gradients(self) -> bool:
        """Whether the domains' gradients are taken."""
        return self.impact is not None or self.domain_gram

    @property
    def tasks(self) -> bool:
        """Whether the observed tasks are looked at."""
        kept = self.proxy_run.keeps_losses if self.proxy_run else None
        return bool(self.task_losses or self.impact or "tasks" in (self.excess_losses, kept))


@dataclass(frozen=True)
class Signals:
    """What was measured, float64. A field that the mixer does not need may be None.

    - `task_losses_UT`: a row for each measurement so far: row 0 before training, the last row now (U >= 1)
    - `impact_DT`: see `core.fisher.impact`
    - `impact_covariance_DTT`: of each domain's impacts, their covariance over tasks as estimates; infinite for a domain
      of which no sample was seen
    - `sample_weights_D`: what a sample of each domain weighs in the loss of a step, by its terms (labelled tokens), for
      a unit of p; 0 for a domain of which no sample was seen; None where all weigh alike
    - `domain_gram_DD`: inner products of the domains' mean gradients, without a metric
    - `domain_losses_D`: mean training loss of each domain's samples in the window, NaN where none was drawn
    - `excess_losses_T`, `excess_losses_D`: see Needs
    - `samples_seen`: training samples so far, which always comes along
    - `progress`: these as a share of the run's, from 0 to 1

    Values that are not finite are allowed everywhere: such a task, or such a domain's loss, is left out.
    """

    task_losses_UT: Array | None = None
    impact_DT: Array | None = None
    impact_covariance_DTT: Array | None = None
    sample_weights_D: Array | None = None
    domain_gram_DD: Array | None = None
    domain_losses_D: Array | None = None
    excess_losses_T: Array | None = None
    excess_losses_D: Array | None = None
    samples_seen: int = 0
    progress: float = 0.0


class Mixer(Protocol):
    """A strategy. `init` gives the state before training; `update` the probabilities of the next window.

    Both give finite probabilities that sum to one and are at least floor / D each, whatever the signals.
    `update` is a function of its arguments alone and treats the domains alike: permuted signals give permuted
    probabilities.

    A state is a NamedTuple of numpy arrays and nothing else, `probabilities_D` always among them, so that a
    checkpoint can hold it: save `state._asdict()`, restore with `mixer.init()._replace(**arrays)`.

    A mixer may also have `options`, a mapping of its options' final values, which the run's config.yaml then holds,
    and `warning`, a line that is shown before training, or None.
    """

    @property
    def num_domains(self) -> int: ...
    @property
    def num_tasks(self) -> int: ...
    @property
    def needs(self) -> Needs: ...
    def init(self) -> Any: ...
    def update(self, state: Any, signals: Signals) -> tuple[Array, Any]: ...


def read_impact(signals: Signals, num_domains: int, num_tasks: int) -> tuple[Array, Bools]:
    """`(impact_DT, usable_T)`: huge values cut off, unusable tasks' columns zero.

    A task is unusable when some impact on it is not finite, or when all are zero: that is what
    `core.fisher.impact` gives for a task whose gradient is zero or not finite.
    """
    impact_DT = signals.impact_DT
    assert impact_DT is not None and impact_DT.shape == (num_domains, num_tasks), "as `needs` asks"
    usable_T: Bools = np.isfinite(impact_DT).all(axis=0) & (impact_DT != 0).any(axis=0)
    return np.where(usable_T, np.clip(impact_DT, -_LARGEST, _LARGEST), 0.0), usable_T


def read_covariance(signals: Signals, num_domains: int, usable_T: Bools) -> Array:
    """`impact_covariance_DTT`: infinite for a domain of which it is not finite, or huge; zero for unusable tasks."""
    covariance_DTT = signals.impact_covariance_DTT
    assert covariance_DTT is not None, "as `needs` asks"
    assert covariance_DTT.shape == (num_domains, len(usable_T), len(usable_T)), "D x T x T"
    covariance_DTT = np.where(usable_T[:, None] & usable_T, covariance_DTT, 0.0)
    known_D: Bools = np.asarray((np.abs(covariance_DTT) <= _LARGEST).all(axis=(1, 2)))  # NaN is not
    return np.where(known_D[:, None, None], covariance_DTT, np.inf)


def read_weights(signals: Signals, num_domains: int) -> Array:
    """`sample_weights_D`: huge values cut off, zero where it is not finite or negative; ones where all are alike."""
    weights_D = signals.sample_weights_D
    if weights_D is None:
        return np.ones(num_domains)
    assert weights_D.shape == (num_domains,), "D"
    return np.where(np.isfinite(weights_D), np.clip(weights_D, 0.0, _LARGEST), 0.0)


def read_losses(signals: Signals, num_tasks: int) -> Array:
    """`task_losses_UT`: huge values cut off, all that is not finite NaN."""
    losses_UT = signals.task_losses_UT
    assert losses_UT is not None and losses_UT.ndim == 2, "as `needs` asks"
    assert len(losses_UT) >= 1 and losses_UT.shape[1] == num_tasks, "U x T with U >= 1"
    return np.where(np.isfinite(losses_UT), np.clip(losses_UT, -_LARGEST, _LARGEST), np.nan)


def read_excess(losses: Array | None, count: int) -> tuple[Array, Bools]:
    """Excess losses of `count` tasks or domains, huge values cut off, zero where not finite; and which are."""
    assert losses is not None and losses.shape == (count,), "as `needs` asks"
    usable: Bools = np.isfinite(losses)
    return np.where(usable, np.clip(losses, 0.0, _LARGEST), 0.0), usable


def read_gram(signals: Signals, num_domains: int) -> tuple[Array, Bools]:
    """`(gram_DD, usable_D)`: huge values cut off, and zero for each domain without a gradient, or with one that is not
    finite.
    """
    gram_DD = signals.domain_gram_DD
    assert gram_DD is not None and gram_DD.shape == (num_domains, num_domains), "as `needs` asks"
    own_D = gram_DD.diagonal()
    usable_D: Bools = np.isfinite(own_D) & (own_D > 0)
    kept_DD = np.where(np.isfinite(gram_DD) & np.outer(usable_D, usable_D), gram_DD, 0.0)
    return np.clip(kept_DD, -_LARGEST, _LARGEST), usable_D


def task_shares(impact_DT: Array) -> Array:
    """s_DT: the share that each domain has of a task's positive impact; a column of zeros where none is positive.

    >>> task_shares(np.array([[3.0, -1.0], [1.0, 0.0]]))
    array([[0.75, 0.  ],
           [0.25, 0.  ]])
    """
    positive_DT = np.maximum(impact_DT, 0.0)
    largest_T = positive_DT.max(axis=0)
    scaled_DT = positive_DT / np.where(largest_T > 0, largest_T, 1.0)  # a sum of huge values would overflow
    total_T = np.array([math.fsum(column_D) for column_D in scaled_DT.T])
    shares_DT: Array = scaled_DT / np.where(total_T > 0, total_T, 1.0)
    return shares_DT
