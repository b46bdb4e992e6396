"""The positions of some samples on the two principal axes of the clustered features.

Shapes: `N` samples, `M` of them, `K` dims.
"""

import numpy as np
from numpy.typing import NDArray

from ..artifacts.domain_map import View
from .kmeans import Read

MAX_POINTS = 4000  # points drawn; more would only cover each other
LEAST = 3  # points that make two axes
SEED = 0


def view_of(read: Read, written_N: NDArray[np.bool_]) -> View | None:
    """A View of the samples that have features, at most 4,000 by a seeded choice; None if fewer than three have any."""
    rows_M = np.flatnonzero(written_N)
    if len(rows_M) < LEAST:
        return None
    if len(rows_M) > MAX_POINTS:
        rows_M = np.sort(np.random.default_rng(SEED).choice(rows_M, MAX_POINTS, replace=False))
    points_N2 = np.full((len(written_N), 2), np.nan, dtype=np.float32)
    points_N2[rows_M], explained_2 = principal_axes(read(rows_M).astype(np.float64))
    return View(points_N2, explained_2)


def principal_axes(rows_MK: NDArray[np.float64]) -> tuple[NDArray[np.float64], tuple[float, float]]:
    """The rows on the two directions of largest variance, shape (M, 2), and each direction's share of the variance."""
    centred_MK = rows_MK - rows_MK.mean(axis=0)
    variances_K, axes_KK = np.linalg.eigh(centred_MK.T @ centred_MK)  # ascending
    total = float(variances_K.sum()) or 1.0
    first, second = (max(0.0, float(variance)) / total for variance in variances_K[:-3:-1])
    return centred_MK @ axes_KK[:, :-3:-1], (first, second)
