import numpy as np
import pytest

from llamafactory_dids.mixers import Signals

D, T, NUM_UPDATES = 4, 3, 8


@pytest.fixture
def stream() -> list[Signals]:
    """Losses that fall at different speeds, with noise that lets some rise, and impacts of both signs."""
    rng = np.random.default_rng(5)
    speeds_T = np.array([0.1, 0.4, 1.5])
    losses_UT = (
        1 + 2 * np.exp(-np.arange(NUM_UPDATES + 1)[:, None] * speeds_T) + rng.normal(0, 0.05, (NUM_UPDATES + 1, T))
    )
    impacts_UDT, roots_UDTT = rng.normal(0, 0.5, (NUM_UPDATES, D, T)), rng.normal(0, 0.2, (NUM_UPDATES, D, T, T))
    covariances_UDTT = roots_UDTT @ roots_UDTT.transpose(0, 1, 3, 2)
    weights_D = np.array([0.5, 2.0, 1.0, 0.1])
    return [Signals(losses_UT[: u + 2], impacts_UDT[u], covariances_UDTT[u], weights_D) for u in range(NUM_UPDATES)]
