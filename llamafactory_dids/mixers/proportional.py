"""The proportional mixture: every sample is equally likely (the paper's "Random" baseline)."""

from __future__ import annotations

from numpy.typing import ArrayLike

from .checks import shares_of_sizes
from .static import Fixed


def proportional(num_domains: int, num_tasks: int, *, sizes_D: ArrayLike | None = None) -> Fixed:
    """`mix_strategy: proportional`: p = share of the samples. Raises ValueError without sizes.

    >>> proportional(2, 0, sizes_D=[100, 300]).init().probabilities_D
    array([0.25, 0.75])
    """
    shares_D = shares_of_sizes(sizes_D, num_domains, "mix_strategy 'proportional'")
    return Fixed(num_domains, num_tasks, shares_D)
