"""Checks of a strategy's options, and shares computed from the other inputs of its factory.

A message names the YAML key, shows the value received and says what is allowed.

Shapes: `D` domains, `T` tasks.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
from numpy.typing import ArrayLike

from .base import Array

_LARGEST_STEP = 1_000_000


def require_tasks(name: str, num_tasks: int) -> None:
    """Raises ValueError if a strategy that learns from tasks has none."""
    if num_tasks < 1:
        raise ValueError(
            f"dids_tasks: got none, allowed: at least one task for mix_strategy {name!r} (or an eval_dataset)"
        )


def require_choice(key: str, value: object, allowed: Iterable[str]) -> None:
    """Raises ValueError, naming the YAML key, for a value that is not in `allowed`."""
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


def require_part(key: str, value: object) -> None:
    """Raises ValueError, naming the YAML key, for anything but a number in (0, 1]."""
    if not (_is_number(value) and 0.0 < value <= 1.0):  # type: ignore[operator]
        raise ValueError(f"{key}: got {value!r}, allowed: above 0, at most 1")


def require_positive(key: str, value: object) -> None:
    """Raises ValueError, naming the YAML key, for anything but a number above 0 by which no signal overflows."""
    if not (_is_number(value) and 0.0 < value <= _LARGEST_STEP):  # type: ignore[operator]
        raise ValueError(f"{key}: got {value!r}, allowed: a number above 0, at most {_LARGEST_STEP}")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float, np.floating, np.integer)) and not isinstance(value, bool)


def shares_of_sizes(sizes_D: ArrayLike | None, num_domains: int, why: str) -> Array:
    """Each domain's share of the samples (D). Raises ValueError, which says `why` the sizes are needed.

    >>> shares_of_sizes([100, 300], num_domains=2, why="an example")
    array([0.25, 0.75])
    """
    if sizes_D is None:
        raise ValueError(f"sizes_D: got None, allowed: the number of samples of each domain, for {why}")
    sizes = np.array(sizes_D, dtype=np.float64)
    if sizes.shape != (num_domains,) or not np.isfinite(sizes).all() or (sizes < 0).any() or not sizes.any():
        raise ValueError(f"sizes_D: got {sizes.tolist()}, allowed: {num_domains} sample counts, not all zero")
    return sizes / math.fsum(sizes)


def histogram(task_samples_TD: ArrayLike | None, num_tasks: int, num_domains: int, why: str) -> Array:
    """The share of all tasks' samples that are nearest to each domain (D). Raises ValueError, which says `why` they are
    needed.

    >>> histogram([[3, 1], [0, 4]], num_tasks=2, num_domains=2, why="an example")
    array([0.375, 0.625])
    """
    if task_samples_TD is None:
        raise ValueError(f"task_samples_TD: got None, allowed: the task samples nearest to each domain, for {why}")
    counts_TD = np.array(task_samples_TD, dtype=np.float64)
    usable = counts_TD.shape == (num_tasks, num_domains) and bool((np.isfinite(counts_TD) & (counts_TD >= 0)).all())
    if not usable or not counts_TD.any():
        allowed = f"{num_tasks} x {num_domains} counts, not all zero"
        raise ValueError(f"task_samples_TD: got {counts_TD.tolist()}, allowed: {allowed}")
    all_D = np.array([math.fsum(counts_T) for counts_T in counts_TD.T])
    return all_D / math.fsum(all_D)
