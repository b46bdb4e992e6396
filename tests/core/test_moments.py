import math

import numpy as np
import pytest
import torch

from llamafactory_dids.core.moments import PRIOR, Moments

T = 3


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def moments_of(*domains: np.ndarray, weights: list[np.ndarray] | None = None, at_once: int = 2) -> Moments:
    """Each domain's scores (n x T) and weights, added a few samples at a time."""
    weights = weights or [np.ones(len(scores_NT)) for scores_NT in domains]
    found = Moments(len(domains), T)
    for domain, (scores_NT, weights_N) in enumerate(zip(domains, weights, strict=True)):
        for start in range(0, len(scores_NT), at_once):
            part = slice(start, start + at_once)
            mine_N = torch.tensor(weights_N[part])
            weighted_NT = mine_N[:, None] * torch.tensor(scores_NT[part])
            found.add(torch.full((len(mine_N),), domain), mine_N, weighted_NT)
    return found


def test_the_means_are_weighted_and_the_covariances_those_of_a_mean(rng):
    scores = [rng.normal(size=(n, T)) for n in (40, 60)]
    weights = [rng.uniform(0.5, 2, len(scores_NT)) for scores_NT in scores]
    mean_DT, covariance_DTT, weight_D = moments_of(*scores, weights=weights).estimates()
    np.testing.assert_allclose(weight_D, [weights_N.mean() for weights_N in weights])
    spreads, counts = [], []
    for found_T, scores_NT, weights_N in zip(mean_DT, scores, weights, strict=True):
        np.testing.assert_allclose(found_T, np.average(scores_NT, axis=0, weights=weights_N))
        centred_NT = (scores_NT - found_T) * weights_N[:, None]
        counts.append(weights_N.sum() ** 2 / (weights_N**2).sum())
        spreads.append(centred_NT.T @ centred_NT)
    terms = [weights_N.sum() * (1 - 1 / n) for weights_N, n in zip(weights, counts, strict=True)]
    term_TT = sum(spreads) / sum(terms)
    for found_TT, spread_TT, weights_N, n in zip(covariance_DTT, spreads, weights, counts, strict=True):
        own_TT, common_TT = spread_TT / (weights_N**2).sum(), term_TT / weights_N.sum()
        np.testing.assert_allclose(found_TT, (own_TT + PRIOR * common_TT) / (n - 1 + PRIOR))


def test_long_answers_do_not_take_over_the_error_of_short_ones():
    """Both domains have as many samples. A sample's score is the mean of its terms', each of variance one."""
    rng, lengths, samples = np.random.default_rng(1), (2, 200), 3
    told_RD, found_RD = [], []
    for _ in range(400):
        scores = [rng.normal(size=(samples, length, T)).mean(axis=1) for length in lengths]
        weights = [np.full(samples, float(length)) for length in lengths]
        mean_DT, covariance_DTT, _ = moments_of(*scores, weights=weights).estimates()
        told_RD.append(np.trace(covariance_DTT, axis1=1, axis2=2) / T)
        found_RD.append((mean_DT**2).mean(axis=1))
    np.testing.assert_allclose(np.mean(told_RD, axis=0), np.mean(found_RD, axis=0), rtol=0.15)
    np.testing.assert_allclose(np.mean(told_RD, axis=0), [1 / (samples * length) for length in lengths], rtol=0.15)


@pytest.mark.parametrize("n", [2, 5, 80])
def test_a_mean_is_unbiased_and_its_error_told_whatever_the_number_of_samples(n):
    """Where a cosine shrinks by 1 / sqrt(1 + B / n)."""
    rng, others = np.random.default_rng(0), 300
    found = [
        moments_of(0.5 + rng.normal(size=(n, T)), rng.normal(size=(others, T)), at_once=others).estimates()
        for _ in range(400)
    ]
    means_RT = np.stack([mean_DT[0] for mean_DT, *_ in found])
    told_T = np.mean([np.diag(covariance_DTT[0]) for _, covariance_DTT, _ in found], axis=0)
    assert means_RT.mean(axis=0) == pytest.approx(0.5, abs=4 / math.sqrt(400 * n))
    assert told_T == pytest.approx(1 / n, rel=0.1) and means_RT.var(axis=0) == pytest.approx(1 / n, rel=0.35)


def test_one_sample_has_the_error_that_samples_have_in_common(rng):
    _, covariance_DTT, _ = moments_of(rng.normal(size=(1, T)), rng.normal(size=(5000, T))).estimates()
    np.testing.assert_allclose(covariance_DTT[0], np.eye(T), atol=0.1)


def test_domains_of_one_sample_each_tell_no_error(rng):
    mean_DT, covariance_DTT, weight_D = moments_of(*rng.normal(size=(4, 1, T))).estimates()
    assert np.isinf(covariance_DTT).all() and mean_DT.all() and weight_D.tolist() == [1.0] * 4


def test_a_domain_without_a_sample_is_not_known(rng):
    mean_DT, covariance_DTT, weight_D = moments_of(rng.normal(size=(0, T)), rng.normal(size=(3, T))).estimates()
    assert not mean_DT[0].any() and weight_D.tolist() == [0.0, 1.0]
    assert np.isinf(covariance_DTT[0]).all() and np.isfinite(covariance_DTT[1]).all()


def test_a_sample_that_is_not_finite_or_has_no_weight_is_left_out(rng):
    scores_NT = rng.normal(size=(4, T))
    spoilt_NT = np.concatenate([scores_NT, [[math.nan] * T], [[1e30] * T]])
    spoilt = moments_of(spoilt_NT, weights=[np.array([1, 1, 1, 1, 1, 0.0])])
    for found, expected in zip(spoilt.estimates(), moments_of(scores_NT).estimates(), strict=True):
        np.testing.assert_allclose(found, expected)
