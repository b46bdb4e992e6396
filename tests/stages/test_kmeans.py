"""k-means on its own: partitions, small clusters, seeds, and how much it reads at once."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from llamafactory_dids.stages import kmeans
from llamafactory_dids.stages.kmeans import kmeans_labels
from tests.reference.cluster import best_partition
from tests.stages.points import blobs


def labels_of(points_NK: np.ndarray, num_clusters: int, **options) -> np.ndarray:
    return kmeans_labels(points_NK.__getitem__, np.arange(len(points_NK)), num_clusters, **options)


def groups(labels_N: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels_N == label).tolist()) for label in np.unique(labels_N)}


@pytest.mark.parametrize("seed", range(2))
def test_well_separated_clusters_are_those_of_the_best_partition(seed):
    points_NK = blobs(4, 2, 2, seed=seed)[np.random.default_rng(seed).permutation(8)]
    assert groups(labels_of(points_NK, 3, min_size=1, seed=seed)) == best_partition(points_NK, 3)


def test_labels_count_from_the_largest_cluster_to_the_smallest():
    order = np.random.default_rng(0).permutation(60)
    labels_N = labels_of(blobs(10, 30, 20)[order], 3, min_size=1, seed=0)
    expected_N = np.repeat([2, 0, 1], [10, 30, 20])[order]
    assert labels_N.tolist() == expected_N.tolist()


def test_a_tiny_cluster_joins_its_nearest():
    points_NK = blobs(20, 20, 3)
    points_NK[40:] += 15 * (points_NK[20:40].mean(axis=0) / 20)  # the three lean towards the second
    assert len(groups(labels_of(points_NK, 3, min_size=3, seed=0))) == 3
    merged = groups(labels_of(points_NK, 3, min_size=4, seed=0))
    assert merged == {frozenset(range(20)), frozenset(range(20, 43))}


def test_tiny_clusters_that_joined_go_on_from_their_common_mean():
    places, sizes = [80, 110, 190, 0], [8, 12, 40, 40]
    points_NK = np.repeat(places, sizes).astype(np.float32)[:, None] * np.eye(1, 4, dtype=np.float32)
    points_NK[:, 1] = 0.01 * np.arange(100)  # no two alike
    assert groups(labels_of(points_NK, 4, min_size=2, seed=0)) == groups(np.repeat(range(4), sizes))
    merged = groups(labels_of(points_NK, 4, min_size=21, seed=0))
    assert merged == {frozenset(range(60)), frozenset(range(60, 100))}


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 60), st.integers(1, 9), st.integers(1, 20), st.integers(0, 1000))
def test_no_cluster_is_too_small_unless_it_is_the_only_one(num_points, num_clusters, min_size, seed):
    points_NK = np.random.default_rng(seed).normal(size=(num_points, 3)).astype(np.float32)
    labels_N = labels_of(points_NK, num_clusters, min_size=min_size, seed=seed)
    sizes = np.bincount(labels_N)
    assert len(sizes) <= num_clusters and labels_N.shape == (num_points,)
    assert len(sizes) == 1 or sizes.min() >= min_size
    assert (np.diff(sizes) <= 0).all()


def test_duplicates_get_one_domain():
    points_NK = np.repeat(blobs(1, 1, 1), 12, axis=0)
    assert groups(labels_of(points_NK, 5, min_size=1, seed=0)) == {
        frozenset(range(start, start + 12)) for start in (0, 12, 24)
    }
    assert labels_of(np.ones((30, 4), np.float32), 4, min_size=1, seed=0).tolist() == [0] * 30


def test_the_same_seed_makes_the_same_clusters():
    points_NK = np.random.default_rng(1).normal(size=(200, 6)).astype(np.float32)
    first, again = (labels_of(points_NK, 8, min_size=5, seed=3) for _ in range(2))
    assert np.array_equal(first, again)


@pytest.mark.parametrize("seed", [0, 2**31 - 1, 2**31, 2**32 - 1, 2**40 + 7])
def test_any_seed_of_the_host_will_do(seed):
    assert groups(labels_of(blobs(9, 8, 7), 3, min_size=1, seed=seed)) == groups(np.repeat([0, 1, 2], [9, 8, 7]))


def test_k_means_reads_no_more_rows_at_once_than_it_trains_on(monkeypatch):
    points_NK = blobs(700, 500, 300)
    read = []

    def reading(rows_M):
        read.append(len(rows_M))
        return points_NK[rows_M]

    monkeypatch.setattr(kmeans, "MAX_POINTS", 20)
    monkeypatch.setattr(kmeans, "MIN_SAMPLE", 60)
    monkeypatch.setattr(kmeans, "_BLOCK", 50)
    labels_M = kmeans_labels(reading, np.arange(1500), 3, min_size=1, seed=0)
    assert groups(labels_M) == groups(np.repeat([0, 1, 2], [700, 500, 300]))
    assert read[0] == 60 and max(read[1:]) == 50


def inertia(points_NK: np.ndarray, num_clusters: int, seed: int) -> float:
    labels_N = labels_of(points_NK, num_clusters, min_size=1, seed=seed)
    members = [points_NK[labels_N == label] for label in np.unique(labels_N)]
    return float(sum(np.square(one - one.mean(axis=0)).sum() for one in members))


def test_among_few_clusters_every_seed_finds_what_is_as_good():
    points_NK = blobs(300, 250, 200, 150, 100, 50, far=3.0)
    found = [inertia(points_NK, 4, seed) for seed in range(8)]
    assert max(found) < 1.001 * min(found)


def test_the_best_of_ten_starts_is_hardly_better_among_noise_and_groups_of_unequal_sizes():
    rng = np.random.default_rng(0)
    groups_M = rng.choice(60, 6000, p=rng.dirichlet(np.full(60, 0.5)))
    points_NK = rng.normal(size=(60, 64))[groups_M] + 0.5 * rng.standard_normal((6000, 64))
    points_NK = points_NK.astype(np.float32)
    best = KMeans(30, n_init=10, random_state=0).fit(points_NK).inertia_
    assert max(inertia(points_NK, 30, seed) for seed in range(3)) < 1.01 * best
