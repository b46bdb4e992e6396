"""Importance sampling (the baseline of Fan et al. 2024a, arXiv:2410.02498): p is the tasks' histogram over the domains.

    p_i = share of the observed task samples whose nearest centroid is domain i's, fixed

Shapes: `D` domains.
"""

from __future__ import annotations

from numpy.typing import ArrayLike

from ..core.simplex import raise_to_floor
from .base import Needs
from .checks import histogram, require_share, require_tasks
from .static import Fixed


def importance(
    num_domains: int,
    num_tasks: int,
    *,
    task_samples_TD: ArrayLike | None = None,
    floor: float | None = None,
) -> Fixed:
    """`mix_strategy: importance`. Domains near few task samples are raised to floor / D; `floor` defaults to 0.

    Raises ValueError for a value that is not allowed, and without a count of task samples for each domain.

    >>> importance(2, 1, task_samples_TD=[[3, 1]]).init().probabilities_D
    array([0.75, 0.25])
    """
    require_tasks("importance", num_tasks)
    floor = 0.0 if floor is None else floor
    require_share("dids_floor", floor)
    shares_D = histogram(task_samples_TD, num_tasks, num_domains, "importance")
    p_D = raise_to_floor(shares_D, floor)
    return Fixed(num_domains, num_tasks, p_D, options={"floor": floor}, needs=Needs(task_samples=True))
