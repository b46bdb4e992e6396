import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize

from llamafactory_dids.core import simplex
from tests.reference import dids as reference

SCORES = st.lists(st.floats(-1e130, 1e130), min_size=1, max_size=40).map(np.array)
WEIGHTS = st.lists(st.floats(1e-7, 1e130), min_size=1, max_size=40).map(np.array)


def assert_on_the_simplex(p_D: np.ndarray) -> None:
    assert (p_D >= 0).all() and abs(math.fsum(p_D) - 1) < 1e-12, p_D


@given(SCORES)
def test_softmax_is_on_the_simplex_and_keeps_the_order_whatever_the_scores(scores_D):
    p_D = simplex.softmax(scores_D)
    assert_on_the_simplex(p_D)
    assert (np.diff(p_D[np.argsort(scores_D)]) >= 0).all()


@given(WEIGHTS)
def test_normalize_keeps_the_proportions(weights_D):
    p_D = simplex.normalize(weights_D)
    assert_on_the_simplex(p_D)
    np.testing.assert_allclose(p_D / p_D.max(), weights_D / weights_D.max(), rtol=1e-12)


@given(SCORES, st.randoms(use_true_random=False))
def test_a_permutation_of_the_domains_permutes_the_result_to_the_last_bit(scores_D, random):
    order = random.sample(range(len(scores_D)), len(scores_D))
    for function in (simplex.softmax, simplex.standardize):
        assert np.array_equal(function(scores_D[order]), function(scores_D)[order])


@given(SCORES)
def test_standardized_values_have_mean_zero_and_deviation_one_or_are_all_zero(values_D):
    z_D = simplex.standardize(values_D)
    assert abs(z_D.mean()) < 1e-3
    assert z_D.std() == pytest.approx(1.0) or not z_D.any()


@pytest.mark.parametrize("value", [0.0, 0.1, 1e60])
def test_equal_values_standardize_to_zeros_and_not_to_their_rounding_errors(value):
    assert not simplex.standardize(np.full(7, value)).any()


def test_exponentiated_lets_a_domain_of_probability_zero_come_back():
    p_D = simplex.exponentiated(np.array([1.0, 0.0]), np.array([0.0, 200.0]))
    assert p_D[1] == pytest.approx(1.0)


@given(WEIGHTS, st.floats(0, 1))
def test_raised_to_the_floor_is_max_of_the_floor_and_c_p_whatever_the_floor(weights_D, floor):
    p_D = simplex.normalize(weights_D)
    raised_D = simplex.raise_to_floor(p_D, floor)
    assert_on_the_simplex(raised_D)
    assert (raised_D >= floor / len(p_D)).all()
    assert raised_D == pytest.approx(reference.raised(p_D.tolist(), floor), abs=1e-9)


def test_raised_to_the_floor_is_the_nearest_by_kl():
    p_D, floor = np.array([0.5, 0.3, 0.1, 0.06, 0.04]), 0.4
    found = minimize(
        lambda q_D: (q_D * np.log(q_D / p_D)).sum(),
        np.full(5, 0.2),
        bounds=[(floor / 5, 1)] * 5,
        constraints=[{"type": "eq", "fun": lambda q_D: q_D.sum() - 1}],
        options={"ftol": 1e-14},
    )
    assert simplex.raise_to_floor(p_D, floor) == pytest.approx(found.x, abs=1e-5)


def test_what_lies_above_the_floor_is_left_to_the_last_bit():
    p_D = simplex.normalize(np.array([0.3, 0.3, 0.1, 0.31]))
    assert simplex.raise_to_floor(p_D, 0.05).tolist() == p_D.tolist()


def test_valid_probabilities_are_made_to_sum_to_one():
    assert math.fsum(simplex.validate_probabilities([0.3333, 0.3333, 0.3333], 3)) == pytest.approx(1, abs=1e-15)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0.5, 0.5], "dids_probs: got 2 values, allowed: one for each of the 3"),
        ([0.5, 0.6, -0.1], "-0.1"),
        ([0.5, 0.5, math.nan], "nan"),
        ([1.0, 1.0, 1.0], "sum to 3"),
        ([0.0, 0.0, 0.0], "sum to 0"),
        ([1e308, 1e308, 0.0], "allowed: probabilities from 0 to 1"),
    ],
)
def test_other_probabilities_are_refused_with_what_was_received(values, message):
    with pytest.raises(ValueError, match=message):
        simplex.validate_probabilities(values, 3)


def test_the_mean_mixture_weighs_each_by_the_samples_drawn_with_it_and_leaves_the_last_out():
    mixtures_UD = np.array([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    assert simplex.mean_over(np.array([0, 300, 400]), mixtures_UD).tolist() == [0.75, 0.25]
    assert simplex.mean_over(np.array([0]), mixtures_UD[1:2]).tolist() == [0.0, 1.0]
