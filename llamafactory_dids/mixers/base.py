"""The contract between the strategies and the measuring code: pure functions and a NamedTuple state.

A mixer says what it `needs`; `training/observer.py` measures exactly that and makes the `Signals`. A mixer never sees a
model, a dataset or the name of a domain or task. It does no I/O and draws no random numbers.

A strategy's file exports a factory, (num_domains, num_tasks, keyword options) -> Mixer. An option has the name of its
YAML key, without `dids_`. A factory also gets the following, if it has a keyword for it:

- `sizes_D`: the number of samples of each domain, or of its tokens if `dids_share_of` says so
- `probabilities_D`: the mixture of `dids_probs`
- `points_K`, `mixtures_KD`: the points of `dids_schedule`, as shares of the run, and the mixture at each
- `task_samples_TD`: the number of observed samples of each task that are nearest to each domain's centroid
- `clustered`: whether the run makes its domains itself, and so has features of the samples
- `proxy_runs`: the RunRecord of each proxy run so far. An offline strategy's factory returns the mixer of the next
  run. While `needs.proxy_run` of this mixer is set, the run is made, its record is appended, and the factory is
  called again.

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

# The names that core.fisher.impact accepts. This package does without torch, so they are repeated; a test compares.
IMPACT_KINDS = ("preconditioned", "fisher", "gradient", "kl")
IMPACT_NORMALIZATIONS = ("cosine", "sum", "none", "dot", "authors")

_LARGEST = 1e60  # signals are clipped here, so that no product of two overflows


class Impact(NamedTuple):
    """The arguments of `core.fisher.impact`. `errors`, for `dot` alone, asks for the impacts' covariance as well."""

    kind: str
    normalize: str
    errors: bool = False


class ProxyRun(NamedTuple):
    """A run of the proxy model that an offline strategy wants before the main run.

    `share` is the share of the main run's training samples. `keeps_losses` keeps the trained model's loss on each token
    of the `tasks` or `domains`, as the reference for the `excess_losses` of later runs.
    """

    name: str
    share: float = 1.0
    keeps_losses: Literal["tasks", "domains"] | None = None


class RunRecord(NamedTuple):
    """The record of a finished run: a row for each measurement, the first at 0 samples. A mixture applies from its row
    on.
    """

    samples_U: Array
    probabilities_UD: Array
    task_losses_UT: Array

    def mean_D(self) -> Array:
        """The mean of p over the drawn samples, up to the last update."""
        return mean_over(self.samples_U, self.probabilities_UD)


@dataclass(frozen=True)
class Needs:
    """The measurements that a mixer wants before each update. With `proxy_run`, the mixer is for that proxy run.

    `excess_losses`, of `tasks` or `domains`: max(loss now - loss of the run that kept its losses, 0), averaged over
    tokens. `progress`: the done share of the run, which needs no measurement. `task_samples`: the factory wants
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
        """Whether there are updates at all: something is measured, or the mixture follows the progress."""
        return bool(self.task_losses or self.gradients or self.domain_losses or self.excess_losses or self.progress)

    @property
    def gradients(self) -> bool:
        """Whether the domains' gradients are needed."""
        return self.impact is not None or self.domain_gram

    @property
    def tasks(self) -> bool:
        """Whether the observed tasks are needed."""
        kept = self.proxy_run.keeps_losses if self.proxy_run else None
        return bool(self.task_losses or self.impact or "tasks" in (self.excess_losses, kept))


@dataclass(frozen=True)
class Signals:
    """The measurements at an update, float64. A field that the mixer does not need may be None.

    - `task_losses_UT`: a row for each measurement so far: row 0 before training, the last row now (U >= 1)
    - `impact_DT`: see `core.fisher.impact`
    - `impact_covariance_DTT`: the covariance, over tasks, of the error of each domain's impacts; infinite for a domain
      without a sample
    - `sample_weights_D`: weight of a domain's sample in the loss of a step, by its terms (labelled tokens), for a unit
      of p; 0 for a domain without a sample; None if all samples weigh the same
    - `domain_gram_DD`: inner products of the domains' mean gradients, without a metric
    - `domain_losses_D`: mean training loss of each domain's samples in the window, NaN if none was drawn
    - `excess_losses_T`, `excess_losses_D`: see Needs
    - `samples_seen`: training samples so far; always given
    - `progress`: `samples_seen` as a share of the run's samples, from 0 to 1

    Values that are not finite are allowed everywhere: the task, or the domain's loss, is then left out.
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
    """A strategy. `init` returns the state before training; `update` returns the probabilities of the next window.

    The probabilities of both are finite, sum to one and are at least floor / D, for any signals. `update` depends on
    its arguments alone and treats the domains alike: permuted signals give permuted probabilities.

    A state is a NamedTuple of numpy arrays only, one of them `probabilities_D`. A checkpoint saves `state._asdict()`
    and restores it with `mixer.init()._replace(**arrays)`.

    Two attributes are optional. `options` maps option names to their final values, and is written to config.yaml.
    `warning` is a line to show before training, or None.
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
    """`(impact_DT, usable_T)`: huge values are clipped, the columns of unusable tasks are zero.

    A task is unusable if one of its impacts is not finite, or if all are zero. `core.fisher.impact` returns zeros for a
    task whose gradient is zero or not finite.
    """
    impact_DT = signals.impact_DT
    assert impact_DT is not None and impact_DT.shape == (num_domains, num_tasks), "as `needs` asks"
    usable_T: Bools = np.isfinite(impact_DT).all(axis=0) & (impact_DT != 0).any(axis=0)
    return np.where(usable_T, np.clip(impact_DT, -_LARGEST, _LARGEST), 0.0), usable_T


def read_covariance(signals: Signals, num_domains: int, usable_T: Bools) -> Array:
    """`impact_covariance_DTT`: infinite for a domain with a huge or non-finite entry, zero for unusable tasks."""
    covariance_DTT = signals.impact_covariance_DTT
    assert covariance_DTT is not None, "as `needs` asks"
    assert covariance_DTT.shape == (num_domains, len(usable_T), len(usable_T)), "D x T x T"
    covariance_DTT = np.where(usable_T[:, None] & usable_T, covariance_DTT, 0.0)
    known_D: Bools = np.asarray((np.abs(covariance_DTT) <= _LARGEST).all(axis=(1, 2)))  # NaN is not
    return np.where(known_D[:, None, None], covariance_DTT, np.inf)


def read_weights(signals: Signals, num_domains: int) -> Array:
    """`sample_weights_D`: huge values are clipped, negative and non-finite ones are zero; ones without the signal."""
    weights_D = signals.sample_weights_D
    if weights_D is None:
        return np.ones(num_domains)
    assert weights_D.shape == (num_domains,), "D"
    return np.where(np.isfinite(weights_D), np.clip(weights_D, 0.0, _LARGEST), 0.0)


def read_losses(signals: Signals, num_tasks: int) -> Array:
    """`task_losses_UT`: huge values are clipped, non-finite ones are NaN."""
    losses_UT = signals.task_losses_UT
    assert losses_UT is not None and losses_UT.ndim == 2, "as `needs` asks"
    assert len(losses_UT) >= 1 and losses_UT.shape[1] == num_tasks, "U x T with U >= 1"
    return np.where(np.isfinite(losses_UT), np.clip(losses_UT, -_LARGEST, _LARGEST), np.nan)


def read_excess(losses: Array | None, count: int) -> tuple[Array, Bools]:
    """`(excess, usable)` of `count` tasks or domains: huge values are clipped, non-finite ones unusable and zero."""
    assert losses is not None and losses.shape == (count,), "as `needs` asks"
    usable: Bools = np.isfinite(losses)
    return np.where(usable, np.clip(losses, 0.0, _LARGEST), 0.0), usable


def read_gram(signals: Signals, num_domains: int) -> tuple[Array, Bools]:
    """`(gram_DD, usable_D)`: huge values are clipped. A domain whose gradient is zero or not finite has zeros."""
    gram_DD = signals.domain_gram_DD
    assert gram_DD is not None and gram_DD.shape == (num_domains, num_domains), "as `needs` asks"
    own_D = gram_DD.diagonal()
    usable_D: Bools = np.isfinite(own_D) & (own_D > 0)
    kept_DD = np.where(np.isfinite(gram_DD) & np.outer(usable_D, usable_D), gram_DD, 0.0)
    return np.clip(kept_DD, -_LARGEST, _LARGEST), usable_D


def task_shares(impact_DT: Array) -> Array:
    """s_DT: each domain's share of a task's positive impact; a column of zeros if no impact on the task is positive.

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
