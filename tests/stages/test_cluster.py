import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafactory_dids.artifacts.gradient_store import open_store
from llamafactory_dids.errors import DidsError
from llamafactory_dids.stages import kmeans
from llamafactory_dids.stages.cluster import StoredFeatures, cluster_domains, domain_shares, number_for
from llamafactory_dids.stages.means import central_samples
from tests.stages.points import blobs

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


def test_as_many_domains_are_made_as_keep_twice_the_least_size_at_most_the_papers_and_one_each():
    found = [number_for(size, 1, 32) for size in (1, 64, 1_000, 4_607, 4_608, 1_000_000)]
    assert found == [1, 1, 15, 71, 72, 72]
    assert number_for(270, 3, 5) == 27 and number_for(270, 3, 32) == 4
    assert number_for(270, 40, 32) == 40 and number_for(10**6, 100, 32) == 100


@pytest.mark.parametrize(("num_domains", "allowed"), [(2, "each of the 3 datasets"), (31, "training samples, 30")])
def test_impossible_numbers_of_domains_are_refused_with_the_limit(num_domains, allowed):
    with pytest.raises(DidsError, match=f"dids_num_domains: got {num_domains}, allowed: .*{allowed}"):
        domain_shares([10, 10, 10], num_domains, "sqrt")


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
    monkeypatch.setattr(kmeans, "_BLOCK", 100)
    assert domains() == whole
