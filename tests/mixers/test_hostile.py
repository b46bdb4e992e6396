"""Whatever a strategy is made of and told, it gives probabilities, or says in one line what it cannot be made of."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafactory_dids import mixers
from llamafactory_dids.mixers import Signals
from llamafactory_dids.mixers.base import RunRecord
from llamafactory_dids.mixers.dids_options import INITS, PRESETS, TASK_WEIGHTS, UPDATES

ODD = [0.0, 1.0, -1.0, 1e-3, 5e-324, 1e30, 1e300, 1.7e308, math.nan, math.inf, -math.inf]
NUMBERS = st.sampled_from(ODD) | st.floats(-2, 2)
WORDS = st.sampled_from(
    [*PRESETS, *UPDATES, *TASK_WEIGHTS, *INITS, *mixers.base.IMPACT_KINDS, *mixers.base.IMPACT_NORMALIZATIONS]
    + ["tasks", "domains", "?"]
)
OPTIONS = st.none() | NUMBERS | st.booleans() | WORDS | st.integers(-1, 3)
USUAL = {
    "eta": st.floats(1e-3, 1e6),
    "floor": st.floats(0, 0.99),
    "ema_beta": st.floats(0, 0.99),
    "proxy_share": st.floats(0.1, 1),
    "preset": st.sampled_from(list(PRESETS)),
    "update": st.sampled_from(UPDATES),
    "target": st.sampled_from(["tasks", "domains"]),
    "clustered": st.booleans(),
}


def table(*shape: int, values: st.SearchStrategy[float] = NUMBERS) -> st.SearchStrategy[np.ndarray]:
    size = math.prod(shape)
    return st.lists(values, min_size=size, max_size=size).map(lambda flat: np.array(flat, dtype=float).reshape(shape))


def records(num_domains: int, num_tasks: int) -> st.SearchStrategy[list[RunRecord]]:
    """Of proxy runs, whose mixtures are as a run's log has them, and whose losses are anything."""
    mixture = table(2, num_domains, values=st.floats(1e-3, 1)).map(lambda p_UD: p_UD / p_UD.sum(axis=1, keepdims=True))
    made = st.builds(RunRecord, st.just(np.array([0.0, 8.0])), mixture, table(2, num_tasks))
    return st.lists(made, max_size=2)


@st.composite
def makings(draw: st.DrawFn, name: str) -> tuple[int, int, dict[str, Any]]:
    """Domains, tasks and keywords of a factory: some usual, some odd."""
    num_domains, num_tasks = draw(st.integers(1, 4)), draw(st.integers(0, 3))
    counts = st.sampled_from([0.0, 1.0, 7.0, 1e300, math.nan, -1.0])
    given_by_runs = {
        "sizes_D": st.none() | table(num_domains, values=counts) | table(num_domains, values=st.floats(1, 9)),
        "probabilities_D": st.none() | table(num_domains) | st.just(np.full(num_domains, 1 / num_domains)),
        "task_samples_TD": st.none()
        | table(num_tasks, num_domains, values=counts)
        | st.just(np.ones((num_tasks, num_domains))),
        "points_K": st.just([0.0, 1.0]) | st.lists(NUMBERS, max_size=3),
        "mixtures_KD": st.just(np.full((2, num_domains), 1 / num_domains)) | table(2, num_domains),
        "proxy_runs": records(num_domains, num_tasks),
    }
    given_: dict[str, Any] = {}
    for key in mixers.options(name):
        if key in given_by_runs:
            given_[key] = draw(given_by_runs[key])
        elif draw(st.booleans()):
            given_[key] = draw(
                USUAL.get(key, OPTIONS) | OPTIONS if draw(st.integers(0, 9)) == 0 else USUAL.get(key, OPTIONS)
            )
    return num_domains, num_tasks, given_


@st.composite
def signals(draw: st.DrawFn, num_domains: int, num_tasks: int) -> Signals:
    return Signals(
        task_losses_UT=draw(table(draw(st.integers(1, 6)), num_tasks)),
        impact_DT=draw(table(num_domains, num_tasks)),
        impact_covariance_DTT=draw(table(num_domains, num_tasks, num_tasks)),
        sample_weights_D=draw(st.none() | table(num_domains)),
        domain_gram_DD=draw(table(num_domains, num_domains)),
        domain_losses_D=draw(table(num_domains)),
        excess_losses_T=draw(table(num_tasks)),
        excess_losses_D=draw(table(num_domains)),
        samples_seen=draw(st.sampled_from([0, 1, 10**12])),
        progress=draw(st.floats(0, 1)),
    )


@pytest.mark.parametrize("name", mixers.names())
@settings(max_examples=25)
@given(data=st.data())
def test_probabilities_are_finite_and_sum_to_one_or_a_line_says_why_not(name, data):
    num_domains, num_tasks, given_ = data.draw(makings(name))
    try:
        mixer = mixers.create(name, num_domains, num_tasks, **given_)
    except ValueError as error:
        assert ": got " in str(error) and "allowed" in str(error) and "\n" not in str(error), error
        return
    state = mixer.init()
    for step in range(3):
        p_D = state.probabilities_D
        assert p_D.shape == (num_domains,) and np.isfinite(p_D).all() and (p_D >= 0).all(), (step, p_D)
        assert abs(math.fsum(p_D) - 1) < 1e-12, (step, p_D)
        _, state = mixer.update(state, data.draw(signals(num_domains, num_tasks)))
