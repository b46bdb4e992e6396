import itertools
import math

import numpy as np
import pytest
import torch

from llamafactory_dids.core import fisher
from llamafactory_dids.core.fisher import (
    KINDS,
    METRICS,
    NORMALIZATIONS,
    diagonal_fisher,
    domain_cosines,
    impact,
    inner_products,
    kl_divergence,
    marginal_impact,
    metric,
    usable_tasks,
)
from tests.reference import fisher as reference

D, T, N, P = 5, 3, 20, 97


@pytest.fixture
def measured() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(domain_gradients_DP, task_gradients_TP, fisher_TP) of tasks made of N samples each."""
    generator = torch.Generator().manual_seed(11)
    samples_TNP = torch.randn((T, N, P), generator=generator) + torch.randn((T, 1, P), generator=generator)
    tasks_TP = samples_TNP.mean(dim=1)
    domains_DP = torch.randn((D, P), generator=generator)
    domains_DP[0] += tasks_TP.sum(dim=0)
    domains_DP[1] -= tasks_TP[0]
    return domains_DP, tasks_TP, torch.stack([diagonal_fisher(g_NP) for g_NP in samples_TNP])


def test_the_fisher_diagonal_is_the_mean_of_squared_gradients():
    gradients_NP = torch.randn((N, P), generator=torch.Generator().manual_seed(1))
    fisher_P = diagonal_fisher(gradients_NP)
    assert fisher_P.dtype == torch.float32
    np.testing.assert_allclose(fisher_P, reference.fisher(gradients_NP.tolist()), rtol=1e-5)


def test_the_fisher_diagonal_of_half_precision_gradients_is_squared_in_full_precision():
    gradients_NP = torch.full((2, 3), 2.0**-20, dtype=torch.float16)  # whose square is zero in float16
    assert diagonal_fisher(gradients_NP).tolist() == [2.0**-40] * 3


def test_the_fisher_diagonal_of_no_samples_is_refused():
    with pytest.raises(ValueError, match=r"\(0, 4\)"):
        diagonal_fisher(torch.zeros(0, 4))


def test_kl_is_equation_12(measured):
    domains, tasks, fishers = (x.tolist() for x in measured)
    expected_DT = [[reference.kl(d, s, f) for s, f in zip(tasks, fishers, strict=True)] for d in domains]
    np.testing.assert_allclose(kl_divergence(*measured), expected_DT, rtol=1e-10)


def test_kl_of_a_domain_equal_to_the_task_is_zero_and_never_below(measured):
    _, tasks_TP, fisher_TP = measured
    kl_TT = kl_divergence(tasks_TP * 1e10, tasks_TP * 1e10, fisher_TP)
    assert (kl_TT >= 0).all()
    assert (np.diag(kl_TT) <= 1e-12 * kl_TT.max()).all()


@pytest.mark.parametrize("kind", METRICS)
def test_each_metric_is_its_formula(measured, kind):
    expected_TP = [reference.metric(f_P, kind) for f_P in measured[2].tolist()]
    np.testing.assert_allclose(metric(measured[2], kind), expected_TP, rtol=1e-5)


@pytest.mark.parametrize(("kind", "normalize"), list(itertools.product(KINDS, NORMALIZATIONS)))
def test_impact_is_its_formula(measured, kind, normalize):
    expected_DT = reference.impact(*(x.tolist() for x in measured), kind, normalize)
    np.testing.assert_allclose(impact(*measured, kind, normalize), expected_DT, rtol=1e-9, atol=1e-12)


def test_by_default_impact_is_the_cosine_in_the_preconditioned_metric(measured):
    assert np.array_equal(impact(*measured), impact(*measured, kind="preconditioned", normalize="cosine"))


@pytest.mark.parametrize("kind", METRICS)
def test_cosine_ranks_the_aligned_domain_first_and_the_opposed_one_below_zero(measured, kind):
    impact_DT = impact(*measured, kind, "cosine")
    assert (impact_DT.argmax(axis=0) == 0).all()
    assert impact_DT[1, 0] < 0
    assert (np.abs(impact_DT) <= 1).all()


@pytest.mark.parametrize("kind", METRICS)
def test_the_squared_cosine_is_the_share_of_kl_that_the_best_step_removes(measured, kind):
    """method.md, section 3: max over alpha of KL(theta || theta_S) - KL(theta + alpha g_D || theta_S)."""
    products = inner_products(*measured, kind)
    steps = np.linspace(0, 5, 20_001)[:, None, None]
    left = products.task_T - 2 * steps * products.cross_DT + steps**2 * products.domain_DT
    removed_DT = 1 - left.min(axis=0) / products.task_T
    expected_DT = np.maximum(impact(*measured, kind, "cosine"), 0.0) ** 2
    np.testing.assert_allclose(removed_DT, expected_DT, atol=1e-5)


@pytest.mark.parametrize("kind", METRICS)
def test_the_length_of_a_domains_gradient_changes_no_impact_but_dot_and_authors(measured, kind):
    domains_DP, tasks_TP, fisher_TP = measured
    scale_D1 = torch.tensor([[1e-3], [7.0], [1.0], [1e4], [0.5]])
    for normalize in ("cosine", "sum", "none"):
        scaled_DT = impact(domains_DP * scale_D1, tasks_TP, fisher_TP, kind, normalize)
        np.testing.assert_allclose(scaled_DT, impact(*measured, kind, normalize), rtol=1e-5, atol=1e-9)


@pytest.mark.parametrize("kind", METRICS)
def test_chunks_leave_no_seam(measured, kind, monkeypatch):
    whole = inner_products(*measured, kind)
    monkeypatch.setattr(fisher, "_CHUNK", 10)
    for parts, expected in zip(inner_products(*measured, kind), whole, strict=True):
        np.testing.assert_allclose(parts, expected, rtol=1e-12)


@pytest.mark.parametrize(("kind", "normalize"), list(itertools.product(KINDS, NORMALIZATIONS)))
def test_broken_gradients_are_zeros_and_leave_the_others_as_they_are(measured, kind, normalize):
    domains_DP, tasks_TP, fisher_TP = (x.clone() for x in measured)
    domains_DP[3] = 0.0
    domains_DP[4, 5] = math.nan
    tasks_TP[2, 7] = math.inf
    impact_DT = impact(domains_DP, tasks_TP, fisher_TP, kind, normalize)
    alone_DT = impact(domains_DP[:3], tasks_TP[:2], fisher_TP[:2], kind, normalize)
    assert (impact_DT[3:] == 0).all() and (impact_DT[:, 2] == 0).all()
    np.testing.assert_allclose(impact_DT[:3, :2], alone_DT, rtol=1e-12)
    assert alone_DT.any()


@pytest.mark.parametrize("kind", METRICS)
def test_gradients_of_any_size_in_float32_do_not_overflow(measured, kind):
    domains_DP, tasks_TP, fisher_TP = measured
    huge_DT = impact(domains_DP * 1e30, tasks_TP * 1e-12, fisher_TP * 1e-24, kind)
    np.testing.assert_allclose(huge_DT, impact(*measured, kind), rtol=1e-4, atol=1e-7)


def test_usable_tasks_are_those_with_finite_gradients_that_are_not_all_zero():
    tasks_TP = torch.ones(5, 4)
    tasks_TP[1] = 0.0
    tasks_TP[2, 3] = math.nan
    tasks_TP[3, 0] = -math.inf
    fisher_TP = torch.ones(5, 4)
    fisher_TP[4, 2] = math.inf
    assert usable_tasks(tasks_TP).tolist() == [True, False, False, False, True]
    assert usable_tasks(tasks_TP, fisher_TP).tolist() == [True, False, False, False, False]


@pytest.mark.parametrize("kind", METRICS)
def test_domain_cosines_are_those_of_each_pair_in_each_tasks_metric(measured, kind, monkeypatch):
    domains_DP, _, fisher_TP = measured
    expected_TDD = np.ones((T, D, D))
    for t, fisher_P in enumerate(fisher_TP.tolist()):
        metric_P = reference.metric(fisher_P, kind)
        lengths = [math.sqrt(reference.inner(d, d, metric_P)) for d in domains_DP.tolist()]
        for i, j in itertools.product(range(D), repeat=2):
            product = reference.inner(domains_DP[i].tolist(), domains_DP[j].tolist(), metric_P)
            expected_TDD[t, i, j] = product / lengths[i] / lengths[j]
    np.testing.assert_allclose(domain_cosines(domains_DP, fisher_TP, kind), expected_TDD, rtol=1e-4, atol=1e-6)
    monkeypatch.setattr(fisher, "_CHUNK", 10)
    np.testing.assert_allclose(domain_cosines(domains_DP, fisher_TP, kind), expected_TDD, rtol=1e-4, atol=1e-6)


def test_a_domain_without_a_gradient_has_no_cosines_and_the_others_keep_theirs(measured):
    domains_DP, _, fisher_TP = measured
    whole_TDD = domain_cosines(domains_DP, fisher_TP)
    for value in (0.0, math.nan):
        broken_DP = domains_DP.clone()
        broken_DP[2] = value
        cosines_TDD = domain_cosines(broken_DP, fisher_TP)
        assert not cosines_TDD[:, 2].any() and not cosines_TDD[:, :, 2].any()
        np.testing.assert_allclose(cosines_TDD[:, :2, :2], whole_TDD[:, :2, :2])
    with pytest.raises(ValueError, match="allowed: D x P and T x P"):
        domain_cosines(domains_DP[:, 1:], fisher_TP)


def test_the_inputs_are_left_as_they_were(measured):
    copies = [x.clone().double() for x in measured]
    doubles = [x.clone() for x in copies]
    for kind in KINDS:
        impact(*doubles, kind)
    usable_tasks(doubles[1], doubles[2])
    assert all(torch.equal(x, y) for x, y in zip(doubles, copies, strict=True))


def test_numpy_arrays_are_welcome(measured):
    arrays = [x.numpy() for x in measured]
    assert np.array_equal(impact(*arrays), impact(*measured))
    assert impact(*arrays).dtype == np.float64


def test_plain_gradients_need_no_fisher(measured):
    domains_DP, tasks_TP, fisher_TP = measured
    without_DT = impact(domains_DP, tasks_TP, None, "gradient", "dot")
    assert np.array_equal(without_DT, impact(domains_DP, tasks_TP, fisher_TP, "gradient", "dot"))
    with pytest.raises(ValueError, match="fisher: got None"):
        impact(domains_DP, tasks_TP, None, "preconditioned")


def test_what_does_not_fit_is_refused_with_what_was_received(measured):
    domains_DP, tasks_TP, fisher_TP = measured
    with pytest.raises(ValueError, match="dids_impact: got 'fishy', allowed: preconditioned, fisher"):
        impact(*measured, kind="fishy")
    with pytest.raises(ValueError, match="dids_impact_normalize: got 'l2', allowed: cosine, sum"):
        impact(*measured, normalize="l2")
    with pytest.raises(ValueError, match="got 'kl'"):
        metric(fisher_TP, "kl")
    with pytest.raises(ValueError, match=r"\(5, 96\) and \(3, 97\)"):
        impact(domains_DP[:, 1:], tasks_TP, fisher_TP)
    with pytest.raises(ValueError, match=r"\(2, 97\) and \(3, 97\)"):
        impact(domains_DP, tasks_TP, fisher_TP[:2])


# --- of the mixture ----------------------------------------------------------------------------------------

P_D, TERMS_D = np.array([0.1, 0.3, 0.2, 0.25, 0.15]), np.array([1.0, 5.0, 20.0, 3.0, 8.0])


@pytest.mark.parametrize("kind", METRICS)
def test_the_marginal_impact_is_the_slope_of_the_mixtures_alignment_with_each_task(measured, kind):
    domains_DP, tasks_TP, fisher_TP = measured
    found_DT = marginal_impact(*measured, P_D, TERMS_D, kind)
    lists = domains_DP.tolist(), tasks_TP.tolist(), fisher_TP.double().tolist()
    for domain, task in itertools.product(range(D), range(T)):
        step_D = 1e-5 * np.eye(D)[domain]
        ends = [
            reference.alignment(lists[0], lists[1][task], lists[2][task], kind, list(p_D), list(TERMS_D))
            for p_D in (P_D - step_D, P_D + step_D)
        ]
        assert found_DT[domain, task] == pytest.approx((ends[1] - ends[0]) / 2e-5, rel=1e-4, abs=1e-6)


def test_marginal_impacts_average_to_zero_over_the_mixture(measured):
    np.testing.assert_allclose(P_D @ marginal_impact(*measured, P_D, TERMS_D), 0.0, atol=1e-12)


def test_what_all_domains_share_is_no_reason_to_prefer_one(measured):
    domains_DP, tasks_TP, fisher_TP = measured
    alike_DP = domains_DP[:1].repeat(D, 1)  # all as useful as the first, which is far from useless
    assert impact(alike_DP, tasks_TP, fisher_TP).max() > 0.3
    np.testing.assert_allclose(marginal_impact(alike_DP, tasks_TP, fisher_TP, P_D, TERMS_D), 0.0, atol=1e-6)


def test_the_marginal_impact_of_a_sample_is_in_proportion_to_its_terms(measured):
    domains_DP, tasks_TP, fisher_TP = measured
    shares_D = P_D * TERMS_D / (P_D @ TERMS_D)
    of_tokens_DT = marginal_impact(domains_DP, tasks_TP, fisher_TP, shares_D, np.ones(D))  # the same batches
    of_samples_DT = marginal_impact(domains_DP, tasks_TP, fisher_TP, P_D, TERMS_D)
    np.testing.assert_allclose(of_samples_DT, of_tokens_DT * (TERMS_D / (P_D @ TERMS_D))[:, None], rtol=1e-6)


def test_the_marginal_impact_does_not_depend_on_the_size_of_the_gradients(measured):
    domains_DP, tasks_TP, fisher_TP = measured
    scaled_DT = marginal_impact(domains_DP * 64, tasks_TP / 32, fisher_TP / 32**2, P_D, TERMS_D)
    np.testing.assert_allclose(scaled_DT, marginal_impact(*measured, P_D, TERMS_D), rtol=1e-5)


@pytest.mark.parametrize("broken", [0.0, math.nan, math.inf])
def test_a_domain_without_a_usable_gradient_is_left_out_of_the_mixture(measured, broken):
    domains_DP, tasks_TP, fisher_TP = measured
    spoilt_DP = domains_DP.clone()
    spoilt_DP[2] = broken
    found_DT = marginal_impact(spoilt_DP, tasks_TP, fisher_TP, P_D, TERMS_D)
    others = [0, 1, 3, 4]
    expected_DT = marginal_impact(
        domains_DP[others], tasks_TP, fisher_TP, P_D[others] / P_D[others].sum(), TERMS_D[others]
    )
    scale_DT = expected_DT * (P_D[others] @ TERMS_D[others]) / P_D[others].sum() / (P_D @ TERMS_D)
    np.testing.assert_allclose(found_DT[others], scale_DT, rtol=1e-5)
    assert not found_DT[2].any()


def test_a_task_without_a_usable_gradient_has_no_marginal_impact(measured):
    domains_DP, tasks_TP, fisher_TP = measured
    spoilt_TP = tasks_TP.clone()
    spoilt_TP[1] = math.nan
    found_DT = marginal_impact(domains_DP, spoilt_TP, fisher_TP, P_D, TERMS_D)
    assert not found_DT[:, 1].any()
    np.testing.assert_array_equal(found_DT[:, [0, 2]], marginal_impact(*measured, P_D, TERMS_D)[:, [0, 2]])
