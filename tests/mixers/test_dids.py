import numpy as np
import pytest

from llamafactory_dids.core.trajectory import potential
from llamafactory_dids.mixers import Signals, create
from tests.reference import dids as reference

D, T = 4, 3  # of `stream`


def test_the_state_tells_what_the_update_was_made_of(stream):
    _, state = create("dids", D, T).update(create("dids", D, T).init(), stream[-1])
    assert state.utility_D == pytest.approx(stream[-1].impact_DT.mean(axis=1))
    assert state.task_weight_T.tolist() == [1 / T] * T
    assert state.task_potential_T.tolist() == [potential(x_U) for x_U in stream[-1].task_losses_UT.T]


def test_the_start_is_the_tasks_own_histogram_where_asked_for():
    counts_TD = [[6, 0, 0, 0], [0, 0, 1, 3], [0, 0, 0, 0]]
    mixer = create("dids", 4, 3, init="importance", task_samples_TD=counts_TD, floor=0.2)
    start = mixer.init()
    pooled = [0.6 * 0.95, 0.05, 0.1 * 0.95, 0.3 * 0.95]
    assert start.probabilities_D == pytest.approx(pooled)
    expected_TD = [[0.85, 0.05, 0.05, 0.05], [0.05, 0.05, 0.225, 0.675], pooled]
    np.testing.assert_allclose(start.probabilities_TD, expected_TD)
    assert mixer.needs.task_samples and not create("dids", 4, 3, task_samples_TD=counts_TD).needs.task_samples


def test_impacts_that_are_all_the_same_leave_the_default_where_it_is():
    counts_TD = [[90, 10, 0, 0], [30, 70, 0, 0]]
    mixer = create("dids", 4, 2, init="importance", task_samples_TD=counts_TD)
    state = mixer.init()
    for _ in range(100):
        p_D, state = mixer.update(state, Signals(None, np.full((4, 2), 0.1)))
    least = 0.05 / 4
    expected_TD = [[0.9 * (1 - 2 * least), 0.1 * (1 - 2 * least), least, least]]
    expected_TD += [[0.3 * (1 - 2 * least), 0.7 * (1 - 2 * least), least, least]]
    assert state.probabilities_TD == pytest.approx(np.array(expected_TD))
    assert p_D == pytest.approx(np.mean(expected_TD, axis=0))


@pytest.mark.parametrize("task_weights", ["alike", "mixed"])
def test_by_task_each_task_has_a_mixture_of_its_own_and_their_mean_is_drawn_from(stream, task_weights):
    mixer = create("dids", D, T, task_weights=task_weights)
    state, own = mixer.init(), [[1 / D] * D for _ in range(T)]
    for signals in stream:
        p_D, state = mixer.update(state, signals)
        own, expected = reference.by_task(own, signals.impact_DT.tolist(), state.task_weight_T.tolist())
        np.testing.assert_allclose(p_D, expected, rtol=1e-9)
        np.testing.assert_allclose(state.probabilities_TD, own, rtol=1e-9)


def test_by_task_what_helps_many_tasks_does_not_crowd_out_what_helps_one():
    impact_DT = np.array([[0.5, 0.5, 0.5, 0.0], [0.0, 0.0, 0.0, 0.5], [-0.1, 0.0, 0.1, 0.0]])
    ends = {}
    for mixture in ("separate", "by_task"):
        mixer = create("dids", 3, 4, mixture=mixture)
        state = mixer.init()
        for _ in range(60):
            _, state = mixer.update(state, Signals(impact_DT=impact_DT))
        ends[mixture] = state.probabilities_D
    assert ends["separate"][1] < 0.1 and ends["by_task"][1] == pytest.approx(0.25, abs=0.03)


def test_by_task_a_task_that_is_not_usable_once_keeps_its_mixture_and_its_weight():
    mixer = create("dids", 2, 2, mixture="by_task")
    first_D, state = mixer.update(mixer.init(), Signals(impact_DT=np.array([[0.5, -0.5], [-0.5, 0.5]])))
    assert first_D == pytest.approx([0.5, 0.5])
    second_D, after = mixer.update(state, Signals(impact_DT=np.array([[0.5, np.nan], [-0.5, 0.1]])))
    np.testing.assert_array_equal(after.probabilities_TD[1], state.probabilities_TD[1])
    np.testing.assert_allclose(second_D, after.probabilities_TD.mean(axis=0))
