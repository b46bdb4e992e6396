"""The contract between the strategies and what measures for them: pure functions and a NamedTuple state.

A mixer says what it `needs`; `stages/signals.py` measures exactly that. It never sees a model, a dataset or a
name of a domain or task, does no I/O and draws no random numbers.

A strategy's file exports a factory, (num_domains, num_tasks, keyword options) -> Mixer. An option is named as
its YAML key is, without `dids_`. Each factory takes `sizes_D`, the number of samples of each domain, needed
or not.

Shapes: `D` domains, `T` tasks, `U` measurements so far.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array: TypeAlias = NDArray[np.float64]
Bools: TypeAlias = NDArray[np.bool_]

# What core.fisher.impact accepts; spelled out because this package does without torch (a test compares them).
IMPACT_KINDS = ("preconditioned", "fisher", "gradient", "kl")
IMPACT_NORMALIZATIONS = ("cosine", "sum", "none", "dot", "authors")

_LARGEST = 1e60  # signals are cut off here, so that no product of two of them overflows


class Impact(NamedTuple):
    """The arguments of `core.fisher.impact`."""

    kind: str
    normalize: str


@dataclass(frozen=True)
class Needs:
    """What a mixer wants measured before each of its updates."""

    task_losses: bool = False
    impact: Impact | None = None


@dataclass(frozen=True)
class Signals:
    """What was measured, float64. A field that the mixer does not need may be None.

    `task_losses_UT` has a row for each measurement so far: row 0 before training, the last row now (U >= 1).
    Values that are not finite are allowed everywhere: such a task is left out of the update.
    """

    task_losses_UT: Array | None = None
    impact_DT: Array | None = None


class Mixer(Protocol):
    """A strategy. `init` gives the state before training; `update` the probabilities of the next window.

    Both give finite probabilities that sum to one and are at least floor / D each, whatever the signals.
    `update` is a function of its arguments alone and treats the domains alike: permuted signals give permuted
    probabilities.

    A state is a NamedTuple of numpy arrays and nothing else, `probabilities_D` always among them, so that a
    checkpoint can hold it: save `state._asdict()`, restore with `mixer.init()._replace(**arrays)`.
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


def read_losses(signals: Signals, num_tasks: int) -> Array:
    """`task_losses_UT`: huge values cut off, all that is not finite NaN."""
    losses_UT = signals.task_losses_UT
    assert losses_UT is not None and losses_UT.ndim == 2, "as `needs` asks"
    assert len(losses_UT) >= 1 and losses_UT.shape[1] == num_tasks, "U x T with U >= 1"
    return np.where(np.isfinite(losses_UT), np.clip(losses_UT, -_LARGEST, _LARGEST), np.nan)


def require_tasks(name: str, num_tasks: int) -> None:
    """Raises ValueError when a strategy that learns from tasks is given none."""
    if num_tasks < 1:
        raise ValueError(f"dids_tasks: got none, allowed: at least one task for mix_strategy {name!r}")


def require_choice(key: str, value: object, allowed: Iterable[str]) -> None:
    """Raises ValueError, naming the YAML key, for a value that is not among the allowed."""
    if value not in (allowed := tuple(allowed)):
        raise ValueError(f"{key}: got {value!r}, allowed: {', '.join(allowed)}")


def require_bool(key: str, value: object) -> None:
    """Raises ValueError, naming the YAML key, for anything but true and false."""
    if not isinstance(value, bool):
        raise ValueError(f"{key}: got {value!r}, allowed: true, false")


def require_share(key: str, value: object) -> None:
    """Raises ValueError, naming the YAML key, for anything but a number in [0, 1)."""
    if not (_is_number(value) and 0.0 <= value < 1.0):  # type: ignore[operator]
        raise ValueError(f"{key}: got {value!r}, allowed: at least 0, below 1")


def require_positive(key: str, value: object) -> None:
    """Raises ValueError, naming the YAML key, for anything but a finite number above 0."""
    if not (_is_number(value) and 0.0 < value < math.inf):  # type: ignore[operator]
        raise ValueError(f"{key}: got {value!r}, allowed: a number above 0")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)


def shares_of_sizes(sizes_D: ArrayLike | None, num_domains: int, why: str) -> Array:
    """Each domain's share of the samples. Raises ValueError, saying `why` they are needed."""
    if sizes_D is None:
        raise ValueError(f"sizes_D: got None, allowed: the number of samples of each domain, for {why}")
    sizes = np.array(sizes_D, dtype=np.float64)
    if sizes.shape != (num_domains,) or not np.isfinite(sizes).all() or (sizes < 0).any() or not sizes.any():
        raise ValueError(f"sizes_D: got {sizes.tolist()}, allowed: {num_domains} sample counts, not all zero")
    return sizes / math.fsum(sizes)
