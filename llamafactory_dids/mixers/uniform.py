"""The uniform mixture: every domain is equally likely."""

from __future__ import annotations

import numpy as np

from .static import Fixed


def uniform(num_domains: int, num_tasks: int) -> Fixed:
    """`mix_strategy: uniform`: p = 1 / D.

    >>> uniform(4, 0).init().probabilities_D
    array([0.25, 0.25, 0.25, 0.25])
    """
    return Fixed(num_domains, num_tasks, np.full(num_domains, 1.0 / num_domains))
