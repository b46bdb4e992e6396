import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import KMeans

from llamafactory_dids.artifacts.gradient_store import open_store
from llamafactory_dids.errors import DidsError
from llamafactory_dids.stages import cluster
from llamafactory_dids.stages.cluster import (
    StoredFeatures,
    central_samples,
    cluster_domains,
    domain_shares,
    kmeans_labels,
    nearest_domains,
)
from tests.reference.cluster import best_partition


def blobs(*sizes: int, seed: int = 0, far: float = 20.0) -> np.ndarray:
    """Groups of points of these sizes around the corners of a simplex, one group after the other."""
    rng = np.random.default_rng(seed)
    centres = far * np.eye(len(sizes), 12)
    parts = [centre + rng.normal(0, 0.5, (size, 12)) for centre, size in zip(centres, sizes, strict=True)]
    return np.concatenate(parts).astype(np.float32)


def labels_of(points_NK: np.ndarray, num_clusters: int, **options) -> np.ndarray:
    return kmeans_labels(points_NK.__getitem__, np.arange(len(points_NK)), num_clusters, **options)


def groups(labels_N: np.ndarray) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(labels_N == label).tolist()) for label in np.unique(labels_N)}


# --- shares ------------------------------------------------------------------------------------------


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 300), min_size=1, max_size=12), st.integers(0, 60), st.sampled_from(["sqrt", "equal"]))
def test_shares_sum_up_each_source_gets_one_and_none_more_than_it_has(sizes, surplus, how):
    num_domains = min(len(sizes) + surplus, sum(sizes))
    shares = domain_shares(sizes, num_domains, how)
    assert sum(shares) == num_domains
    assert all(1 <= share <= size for share, size in zip(shares, sizes, strict=True))


def test_shares_follow_the_root_of_the_size():
    assert domain_shares([100, 400, 900, 1600], 100, "sqrt") == [10, 20, 30, 40]


def test_equal_shares_are_the_papers_four_of_eighteen_sources():
    assert domain_shares([50_000] * 17 + [2_000], 72, "equal") == [4] * 18


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(200, 9000), min_size=1, max_size=9), st.integers(0, 90))
def test_equal_shares_differ_by_one_at_most_and_sqrt_ones_from_their_due_by_little(sizes, surplus):
    num_domains = len(sizes) + surplus
    equal = domain_shares(sizes, num_domains, "equal")
    assert max(equal) - min(equal) <= 1
    roots = np.sqrt(sizes)
    by_root = np.array(domain_shares(sizes, num_domains, "sqrt"))
    order = np.argsort(sizes, kind="stable")
    assert (np.diff(by_root[order]) >= -1).all(), "a larger source has fewer"
    due = num_domains * roots / roots.sum()
    if (due > 1).all():
        assert (np.abs(by_root - due) < 1 + 0.5 * len(sizes)).all()


def test_what_a_small_source_cannot_take_goes_to_the_others():
    assert domain_shares([2, 1000, 1000], 22, "equal") == [2, 10, 10]


@pytest.mark.parametrize(("num_domains", "allowed"), [(2, "each of the 3 datasets"), (31, "training samples, 30")])
def test_impossible_numbers_of_domains_are_refused_with_the_limit(num_domains, allowed):
    with pytest.raises(DidsError, match=f"dids_num_domains: got {num_domains}, allowed: .*{allowed}"):
        domain_shares([10, 10, 10], num_domains, "sqrt")


# --- k-means ------------------------------------------------------------------------------------------


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


# --- domains ------------------------------------------------------------------------------------------


def test_domains_do_not_cross_sources_and_are_numbered_source_after_source():
    points_NK = np.concatenate([blobs(10, 20), blobs(30, 15)])
    sources_N = np.repeat([0, 1], [30, 45])
    order = np.random.default_rng(0).permutation(75)
    domains_N = cluster_domains(
        points_NK[order].__getitem__, np.ones(75, bool), sources_N[order], [2, 2], min_size=1, seed=0
    )
    expected_N = np.repeat([1, 0, 2, 3], [10, 20, 30, 15])[order]
    assert domains_N.tolist() == expected_N.tolist()


def test_samples_without_a_gradient_join_the_largest_domain_of_their_source():
    points_NK = np.concatenate([blobs(10, 20), blobs(12, 5)])
    sources_N = np.repeat([0, 1], [30, 17])
    written_N = np.ones(47, bool)
    written_N[[3, 35]] = False
    points_NK[~written_N] = 0
    domains_N = cluster_domains(points_NK.__getitem__, written_N, sources_N, [2, 2], min_size=1, seed=0)
    assert domains_N[3] == domains_N[29] == 0
    assert domains_N[35] == domains_N[30] == 2
    assert np.bincount(domains_N).tolist() == [21, 9, 12, 5]


def test_a_source_in_which_no_sample_has_a_gradient_is_one_domain():
    points_NK, written_N = np.zeros((30, 12), np.float32), np.repeat([False, True], [10, 20])
    points_NK[10:] = blobs(12, 8)
    sources_N = np.repeat([0, 1], [10, 20])
    domains_N = cluster_domains(points_NK.__getitem__, written_N, sources_N, [3, 2], min_size=1, seed=0)
    assert domains_N.tolist() == [0] * 10 + [1] * 12 + [2] * 8


def test_a_source_without_samples_is_refused():
    with pytest.raises(DidsError, match="dataset number 1 has no training samples"):
        cluster_domains(blobs(5).__getitem__, np.ones(5, bool), np.zeros(5, int), [1, 1], min_size=1, seed=0)


def test_central_samples_are_those_nearest_the_mean_nearest_first():
    points_NK, domains_N = blobs(9, 7), np.repeat([0, 1], [9, 7])
    written_N = np.ones(16, bool)
    written_N[4] = False
    for domain, found in enumerate(central_samples(points_NK.__getitem__, written_N, domains_N, 3)):
        members = [n for n in range(16) if domains_N[n] == domain and written_N[n]]
        mean = sum(points_NK[n] for n in members) / len(members)
        expected = sorted(members, key=lambda n: sum((points_NK[n] - mean) ** 2))[:3]
        assert found == expected


# --- reading ------------------------------------------------------------------------------------------


def test_features_are_unit_rows_or_as_long_as_they_were(tmp_path):
    store = open_store(tmp_path, {}, num_rows=5, dim=2, part_rows=3)
    unit_NK = np.array([[1, 0], [0.6, 0.8], [0, 0], [0, -1], [-1, 0]])
    norm_N, written_N = np.array([2.0, 5.0, 0.0, 0.5, 3.0]), np.array([True, True, False, True, True])
    for part, rows in enumerate((slice(0, 3), slice(3, 5))):
        store.write_part(part, unit_NK[rows], norm_N[rows], written_N[rows])
    units, lengths = StoredFeatures(store, normalize=True), StoredFeatures(store, normalize=False)
    everyone, some = np.arange(5), np.array([1, 3, 4])
    assert units(everyone).dtype == np.float32 and units.written_N.tolist() == written_N.tolist()
    np.testing.assert_allclose(units(everyone), unit_NK, atol=1e-3)
    np.testing.assert_allclose(lengths(everyone), unit_NK * norm_N[:, None], atol=3e-3)
    np.testing.assert_allclose(lengths(some), lengths(everyone)[some])
    assert units(everyone[:0]).shape == (0, 2)


def test_features_read_in_small_blocks_make_the_same_domains(monkeypatch):
    points_NK = np.random.default_rng(3).normal(size=(3000, 12)).astype(np.float32)
    written_N, sources_N = np.random.default_rng(4).random(3000) < 0.9, np.repeat([0, 1], 1500)

    def domains() -> tuple[list[int], list[list[int]]]:
        domains_N = cluster_domains(points_NK.__getitem__, written_N, sources_N, [5, 3], min_size=4, seed=1)
        return domains_N.tolist(), central_samples(points_NK.__getitem__, written_N, domains_N, 3)

    whole = domains()
    monkeypatch.setattr(cluster, "_BLOCK", 100)
    assert domains() == whole


def test_k_means_reads_no_more_rows_at_once_than_it_trains_on(monkeypatch):
    points_NK = blobs(700, 500, 300)
    read = []

    def reading(rows_M):
        read.append(len(rows_M))
        return points_NK[rows_M]

    monkeypatch.setattr(cluster, "MAX_POINTS", 20)
    monkeypatch.setattr(cluster, "MIN_SAMPLE", 60)
    monkeypatch.setattr(cluster, "_BLOCK", 50)
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


def test_other_samples_count_for_the_domain_whose_mean_is_nearest():
    rng = np.random.default_rng(0)
    features_NK = rng.normal(size=(40, 6)).astype(np.float32)
    domains_N, written_N = rng.integers(0, 4, 40), rng.random(40) < 0.8
    domains_N[domains_N == 2] = 3  # a domain without samples
    others_MK = rng.normal(size=(25, 6)).astype(np.float32)
    expected = []
    for other in others_MK:
        distance = {
            domain: np.linalg.norm(features_NK[written_N & (domains_N == domain)].mean(axis=0) - other)
            for domain in (0, 1, 3)
        }
        expected.append(min(distance, key=distance.get))
    found = nearest_domains(features_NK.__getitem__, written_N, domains_N, 5, others_MK)
    assert found.tolist() == expected
