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
    directions,
    gram,
    impact,
    inner_products,
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
    return domains_DP, tasks_TP, samples_TNP.square().mean(dim=1)


def test_kl_of_a_domain_equal_to_the_task_is_zero_and_never_below(measured):
    _, tasks_TP, fisher_TP = measured
    kl_TT = impact(tasks_TP * 1e10, tasks_TP * 1e10, fisher_TP, "kl")
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


def test_gram_products_are_float64s_whatever_the_number_of_entries():
    rows_DP = np.random.default_rng(0).normal(size=(3, 70_001)).astype(np.float32) * [[1], [1e3], [1e25]]
    expected_DD = rows_DP.astype(np.float32).astype(np.float64) @ rows_DP.astype(np.float32).astype(np.float64).T
    found_DD = gram(torch.tensor(rows_DP, dtype=torch.float32))
    assert found_DD.dtype == np.float64
    np.testing.assert_allclose(found_DD, expected_DD, rtol=1e-10)


@pytest.mark.parametrize("kind", METRICS)
def test_the_product_with_a_direction_is_the_inner_product_in_the_tasks_metric(measured, kind):
    domains_DP, tasks_TP, fisher_TP = measured
    found_DT = domains_DP @ directions(tasks_TP, fisher_TP, kind).T
    np.testing.assert_allclose(found_DT, impact(*measured, kind, "dot"), rtol=1e-4, atol=1e-6)


def test_a_task_without_a_usable_gradient_has_no_direction_and_the_others_keep_theirs(measured):
    _, tasks_TP, fisher_TP = measured
    whole_TP = directions(tasks_TP, fisher_TP)
    for value in (0.0, math.nan, math.inf):
        spoilt_TP = tasks_TP.clone()
        spoilt_TP[1] = value
        found_TP = directions(spoilt_TP, fisher_TP)
        assert not found_TP[1].any() and torch.equal(found_TP[[0, 2]], whole_TP[[0, 2]])


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
