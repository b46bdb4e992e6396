"""Importance sampling (the baseline of Fan et al. 2024a, arXiv:2410.02498): the tasks' own histogram over the domains.

    p_i = share of the observed task samples whose nearest centroid is domain i's, fixed

Shapes: `D` domains.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from ..core.simplex import mix_floor
from .base import require_share, require_tasks
from .static import Fixed


def importance(
    num_domains: int,
    num_tasks: int,
    *,
    task_samples_D: ArrayLike | None = None,
    floor: float | None = None,
    sizes_D: ArrayLike | None = None,
) -> Fixed:
    """`mix_strategy: importance`. A domain that no task sample is near gets nothing but `floor` (0 unless given).

    Raises ValueError for a value that is not allowed, and without a count of task samples for each domain.
    """
    require_tasks("importance", num_tasks)
    floor = 0.0 if floor is None else floor
    require_share("dids_floor", floor)
    if task_samples_D is None:
        raise ValueError("task_samples_D: got None, allowed: the task samples nearest to each domain")
    counts_D = np.array(task_samples_D, dtype=np.float64)
    if counts_D.shape != (num_domains,) or not (np.isfinite(counts_D) & (counts_D >= 0)).all() or not counts_D.any():
        raise ValueError(f"task_samples_D: got {counts_D.tolist()}, allowed: {num_domains} counts, not all zero")
    p_D = mix_floor(counts_D / math.fsum(counts_D), floor)
    return Fixed(num_domains, num_tasks, p_D, options={"floor": floor})
