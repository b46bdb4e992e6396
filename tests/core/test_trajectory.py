import math

import numpy as np
import pytest

from llamafactory_dids.core.trajectory import B_RANGE, Decay, fit_decay, heading, potential
from tests.reference.trajectory import best_residual

t_25 = np.arange(25)


def squares(decay: Decay, losses: np.ndarray) -> float:
    return float(sum((decay.at(t) - loss) ** 2 for t, loss in enumerate(losses)))


@pytest.mark.parametrize(("a", "b", "c"), [(2.0, 0.3, 1.0), (5.0, 0.05, 0.0), (1.0, 2.5, 0.2)])
def test_a_decay_without_noise_is_recovered(a, b, c):
    assert fit_decay(a * np.exp(-b * t_25) + c) == pytest.approx((a, b, c), rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("seed", range(12))
def test_no_decay_on_a_fine_grid_fits_better(seed):
    rng = np.random.default_rng(seed)
    losses = 2 * np.exp(-rng.uniform(0.02, 2) * t_25) + rng.uniform(0, 2) + rng.normal(0, 0.3, 25)
    losses = losses[: rng.integers(4, 26)]
    assert squares(fit_decay(losses), losses) <= best_residual(losses) * (1 + 1e-6)


@pytest.mark.parametrize("losses", [[3.0] * 9, list(np.linspace(1, 2, 9))], ids=["constant", "increasing"])
def test_a_loss_that_does_not_fall_has_no_potential(losses):
    assert potential(losses) == pytest.approx(0.0, abs=1e-6)
    assert fit_decay(losses).at(8) == pytest.approx(np.mean(losses), rel=1e-6)


def test_potential_is_the_fitted_drop_over_the_next_update():
    losses = 2 * np.exp(-0.3 * t_25[:8]) + 1
    assert potential(losses) == pytest.approx(2 * math.exp(-0.3 * 7) - 2 * math.exp(-0.3 * 8), rel=1e-4)


@pytest.mark.parametrize(
    ("losses", "expected"),
    [([], 0), ([2.0], 0), ([2.0, 1.5], 0.5), ([2.0, 2.5], 0), ([9.0, 2.0, 1.75], 0.25), ([math.nan, 2.0], 0)],
)
def test_with_fewer_than_four_points_potential_is_the_last_drop_and_never_negative(losses, expected):
    assert potential(losses) == expected


def test_losses_that_are_not_finite_are_passed_over_and_keep_their_place_in_time():
    losses = 2 * np.exp(-0.3 * t_25) + 1
    broken = losses.copy()
    broken[[3, 4, 10, 24]] = [math.nan, math.inf, -math.inf, math.nan]
    assert fit_decay(broken) == pytest.approx(fit_decay(losses), rel=1e-3)
    assert potential(broken) == pytest.approx(potential(losses), rel=1e-2)


@pytest.mark.parametrize(("losses", "c"), [([], 0.0), ([2.0], 2.0), ([3.0, 2.0], 2.0), ([-1.0], 0.0), ([0.0] * 5, 0.0)])
def test_too_few_losses_to_fit_are_flat_at_the_last(losses, c):
    assert fit_decay(losses) == Decay(0.0, B_RANGE[0], c)


@pytest.mark.parametrize(
    ("last", "lowest", "fall", "expected"),
    [
        (2.0, 2.0, 0.021, "falling"),
        (2.0, 2.0, 0.02, "level"),
        (2.0, 2.0, -0.5, "level"),
        (2.0, 1.97, 0.021, "falling"),
        (2.0, 1.96, 0.021, "above its lowest"),
    ],
)
def test_a_loss_goes_where_a_hundredth_of_it_says(last, lowest, fall, expected):
    assert heading(last, lowest, fall) == expected
