"""Where samples are drawn: on the principal axes of their features."""

import numpy as np
import pytest

from llamafactory_dids.stages.axes import MAX_POINTS, principal_axes, view_of

DIM = 16


def rows_of(num_samples: int) -> tuple[np.ndarray, np.ndarray]:
    """Features of samples in three domains that lie apart, and the domains."""
    rng = np.random.default_rng(0)
    domains_N = rng.integers(0, 3, num_samples)
    return (np.eye(DIM)[domains_N] + rng.normal(0, 0.05, (num_samples, DIM))).astype(np.float32), domains_N


def test_the_axes_are_the_principal_ones():
    rows_NK = np.random.default_rng(1).normal(size=(200, DIM)) * np.linspace(1, 3, DIM)
    points_N2, explained = principal_axes(rows_NK)
    centred = rows_NK - rows_NK.mean(axis=0)
    left, lengths, _ = np.linalg.svd(centred, full_matrices=False)
    assert np.abs(points_N2) == pytest.approx(np.abs(left[:, :2] * lengths[:2]))
    assert explained == pytest.approx(tuple(lengths[:2] ** 2 / (lengths**2).sum()))


def test_each_sample_with_features_is_drawn_near_those_of_its_domain():
    rows_NK, domains_N = rows_of(900)
    written_N = np.arange(900) != 1
    points_N2, _ = view_of(rows_NK.__getitem__, written_N)
    assert (np.isfinite(points_N2).all(axis=1) == written_N).all()
    centres = np.stack([np.nanmean(points_N2[domains_N == d], axis=0) for d in range(3)])
    nearest = np.linalg.norm(points_N2[written_N, None] - centres, axis=2).argmin(axis=1)
    assert (nearest == domains_N[written_N]).all()


def test_of_many_samples_a_seeded_choice_is_drawn():
    rows_NK, _ = rows_of(MAX_POINTS + 500)
    first, again = (view_of(rows_NK.__getitem__, np.ones(len(rows_NK), dtype=bool)) for _ in range(2))
    assert np.isfinite(first.points_N2).all(axis=1).sum() == MAX_POINTS
    np.testing.assert_array_equal(first.points_N2, again.points_N2)


def test_two_samples_are_not_drawn():
    rows_NK, _ = rows_of(9)
    assert view_of(rows_NK.__getitem__, np.arange(9) < 2) is None
    assert view_of(rows_NK.__getitem__, np.arange(9) < 3) is not None
