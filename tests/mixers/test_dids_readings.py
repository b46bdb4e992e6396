import numpy as np
import pytest

from llamafactory_dids.core.trajectory import potential
from llamafactory_dids.mixers import Impact, Signals, create
from llamafactory_dids.mixers.dids import Dids
from llamafactory_dids.mixers.dids_options import PRESET_WARNINGS, PRESETS, resolve
from llamafactory_dids.mixers.dids_readings import Reading
from tests.reference import dids as reference

D, T = 4, 3  # of `stream`


def follow(stream: list[Signals], **options) -> list[tuple[list[float], Signals, list[float], list[float]]]:
    """(p before, signals, p after, potentials) of each update."""
    mixer = create("dids", D, T, **options)
    state, rows = mixer.init(), []
    for signals in stream:
        before = state.probabilities_D.tolist()
        after_D, state = mixer.update(state, signals)
        rows.append((before, signals, after_D.tolist(), state.task_potential_T.tolist()))
    return rows


def trajectory_of(losses_UT: np.ndarray, preset: str) -> tuple[list[float], list[float], list[float]]:
    """(L now, l_c, l_p) of each task."""
    l_p = [potential(losses_U) for losses_U in losses_UT.T]
    if preset == "authors" and len(losses_UT) < 5:
        l_p = [1.0] * len(l_p)
    return losses_UT[-1].tolist(), (losses_UT[-2] - losses_UT[-1]).tolist(), l_p


@pytest.mark.parametrize("preset", ["paper", "literal", "authors"])
def test_each_preset_updates_step_by_step_as_its_reference(stream, preset):
    for before, signals, after, potentials in follow(stream, preset=preset):
        losses, l_c, l_p = trajectory_of(signals.task_losses_UT, preset)
        expected = getattr(reference, preset)(before, signals.impact_DT.tolist(), losses, l_c, l_p)
        assert after == pytest.approx(expected, rel=1e-9, abs=1e-14)
        assert potentials == l_p


@pytest.mark.parametrize("update", ["exponentiated", "standardized", "softmax", "linear"])
def test_raw_task_weights_and_each_update_are_their_formula(stream, update):
    rules = {
        "exponentiated": lambda p, u: reference.exponentiate(p, u, eta=2.5),
        "standardized": lambda p, u: reference.softmax(reference.standardize(u)),
        "softmax": lambda p, u: reference.softmax(u),
        "linear": lambda p, u: [max(x, 1e-7) / sum(max(y, 1e-7) for y in u) for x in u],
    }
    options = {
        "task_weights": "raw",
        "impact_normalize": "cosine",
        "update": update,
        "eta": 2.5,
        "ema_beta": 0.3,
        "floor": 0.2,
    }
    finish = reference.finish_above if update == "exponentiated" else reference.finish
    for before, signals, after, _ in follow(stream, **options):
        _, l_c, l_p = trajectory_of(signals.task_losses_UT, "default")
        weights = [max(0.0, c + q) for c, q in zip(l_c, l_p, strict=True)]
        u = reference.utilities(signals.impact_DT.tolist(), weights)
        expected = finish(before, rules[update](before, u), beta=0.3, floor=0.2)
        assert after == pytest.approx(expected, rel=1e-9)


def test_raw_weights_are_clipped_and_printed_ones_are_not():
    signals = Signals(np.array([[2.0, 3.0], [1.5, 3.25]]), np.array([[0.3, 0.1], [0.2, 0.9]]), np.zeros((2, 2, 2)))
    assert update_once(signals, task_weights="raw")[1].task_weight_T.tolist() == [1.0, 0.0]
    assert update_once(signals, task_weights="printed")[1].task_weight_T.tolist() == [1.0, -0.25]


def test_without_trajectory_tasks_weigh_alike_in_any_preset(stream):
    for preset in PRESETS:
        mixer = create("dids", D, T, preset=preset, trajectory=False)
        assert not mixer.needs.task_losses
        _, state = mixer.update(mixer.init(), stream[-1])
        assert state.task_weight_T.tolist() == [1 / T] * T


def test_before_any_training_tasks_have_made_no_progress():
    signals = Signals(np.array([[2.0, 3.0]]), np.array([[0.3, 0.1], [0.2, 0.9]]))
    p_D, state = update_once(signals, preset="paper")
    assert state.task_weight_T.tolist() == [0.0, 0.0]
    assert p_D.tolist() == [0.5, 0.5]


def test_a_missing_loss_in_the_past_is_bridged():
    losses_UT = np.array([[2.0, 3.0], [np.nan, 2.5], [1.5, 2.25]])
    _, state = update_once(Signals(losses_UT, np.array([[0.3, 0.1], [0.2, 0.9]])), preset="paper")
    assert state.task_weight_T.tolist() == [1.0, 0.5]


def test_division_by_p_is_floored_so_that_an_empty_domain_does_not_take_all():
    signals = Signals(np.array([[2.0, 3.0], [1.5, 2.75]]), np.array([[0.5, 0.5], [0.5, 0.5]]))
    mixer = create("dids", 2, 2, preset="literal")
    state = mixer.init()._replace(probabilities_D=np.array([1.0, 0.0]))
    _, after = mixer.update(state, signals)
    assert after.utility_D.tolist() == [0.75, 0.75]
    expected = reference.literal([1.0, 0.0], [[0.5, 0.5], [0.5, 0.5]], [1.5, 2.75], [0.5, 0.25], [0.5, 0.25])
    assert after.probabilities_D == pytest.approx(expected)


def test_with_fixed_impacts_the_default_keeps_moving_and_the_paper_does_not():
    moves = {}
    for preset, eta in (("default", None), ("paper", None)):
        mixer = create("dids", 3, 1, preset=preset, divide_by_p=False, floor=0.0, eta=eta)
        state, trace = mixer.init(), []
        for u in range(6):
            losses_UT = np.exp(-0.2 * np.arange(u + 2.0))[:, None]
            _, state = mixer.update(state, Signals(losses_UT, np.array([[0.3], [0.2], [0.1]]), np.zeros((3, 1, 1))))
            trace.append(state.probabilities_D[0])
        moves[preset] = trace[-1] - trace[1]
    assert moves["default"] > 0.2 and abs(moves["paper"]) < 0.02


def test_the_start_is_uniform_or_proportional_to_the_sizes_above_the_floor():
    assert create("dids", 4, 1).init().probabilities_D.tolist() == [0.25] * 4
    sizes = {"init": "proportional", "sizes_D": [1, 1, 8], "floor": 0.6}
    assert create("dids", 3, 1, **sizes).init().probabilities_D == pytest.approx([0.2, 0.2, 0.6])
    mixed = create("dids", 3, 1, preset="paper", **sizes).init().probabilities_D
    assert mixed == pytest.approx([0.4 * 0.1 + 0.2, 0.4 * 0.1 + 0.2, 0.4 * 0.8 + 0.2])


def test_the_default_starts_from_the_tasks_histogram_where_the_run_makes_its_domains():
    assert resolve("default", clustered=True)["init"] == "importance" and resolve("default")["init"] == "uniform"
    assert resolve("paper", clustered=True)["init"] == "uniform"
    assert resolve("default", clustered=True, init="proportional")["init"] == "proportional"


def test_the_default_preset_is_the_method_with_its_own_numbers():
    options = resolve("default")
    assert (Dids.eta, Dids.ema_beta, Dids.floor) == (options["eta"], options["ema_beta"], options["floor"])
    mixer = create("dids", 2, 1, clustered=True, task_samples_TD=[[1, 2]])
    assert type(mixer) is Dids and mixer.needs == Dids.needs and mixer.warning is None


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"eta": 3.0, "floor": 0.0, "ema_beta": 0.5}, Dids),
        ({"impact": "fisher", "init": "uniform", "trajectory": False}, Dids),
        ({"preset": "paper", "impact_normalize": "dot", "update": "evidence", "divide_by_p": False}, Reading),
        ({"task_weights": "raw"}, Reading),
        ({"update": "softmax"}, Reading),
        ({"divide_by_p": True}, Reading),
    ],
)
def test_an_option_that_switches_a_piece_makes_a_reading_and_a_number_does_not(options, kind):
    assert type(create("dids", 2, 1, **options)) is kind


def test_presets_are_those_of_the_method_page():
    assert resolve("default", eta=None)["eta"] == 0.25
    measured = {preset: create("dids", 2, 1, preset=preset).needs.impact for preset in PRESETS}
    assert measured["default"] == Impact("preconditioned", "dot", errors=True)
    assert measured["paper"] == Impact("fisher", "sum")
    assert measured["literal"].kind == "kl"
    assert measured["authors"] == Impact("fisher", "authors")
    assert {name: (x["ema_beta"], x["floor"], x["divide_by_p"]) for name, x in PRESETS.items()} == {
        "default": (0.1, 0.05, False),
        "paper": (0.1, 0.05, True),
        "literal": (0.1, 0.0, True),
        "authors": (0.2, 0.0, True),
    }
    assert set(PRESET_WARNINGS) == {"literal", "authors"}


def test_final_values_resolve_to_themselves():
    final = resolve("paper", trajectory=False, floor=0.2)
    assert final == resolve("default", **final)
    assert final["task_weights"] == "alike" and final["floor"] == 0.2 and final["update"] == "standardized"
    assert PRESETS["paper"]["floor"] == 0.05


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"update": "foo"}, "dids_update: got 'foo', allowed: evidence, exponentiated, standardized, softmax, linear"),
        ({"impact": "dot"}, "dids_impact: got 'dot', allowed: preconditioned, fisher, gradient, kl"),
        ({"impact_normalize": "l1"}, "dids_impact_normalize: got 'l1', allowed: cosine"),
        ({"task_weights": 3}, "dids_task_weights: got 3, allowed: alike, raw"),
        ({"init": "random"}, "dids_init: got 'random', allowed: uniform, proportional"),
        ({"init": "proportional"}, "sizes_D: got None.*dids_init 'proportional'"),
        ({"init": "importance"}, "task_samples_TD: got None.*dids_init 'importance'"),
        ({"impact_normalize": "sum"}, "dids_impact_normalize: got 'sum', allowed with dids_update 'evidence': dot"),
        ({"trajectory": "no"}, "dids_trajectory: got 'no', allowed: true, false"),
        ({"divide_by_p": 1}, "dids_divide_by_p: got 1"),
        ({"ema_beta": float("nan")}, "dids_ema_beta: got nan"),
    ],
)
def test_a_bad_value_is_refused_under_its_yaml_name(options, message):
    with pytest.raises(ValueError, match=message):
        create("dids", 2, 1, **options)


def update_once(signals: Signals, **options):
    mixer = create("dids", 2, 2, **options)
    return mixer.update(mixer.init(), signals)


def test_paper_stays_where_it_is_in_a_window_in_which_no_loss_falls():
    mixer = create("dids", 3, 2, preset="paper")
    impact_DT = np.array([[0.9, 0.8], [0.1, 0.2], [-0.5, -0.4]])
    falling_UT = np.array([[2.0, 2.0], [1.5, 1.6]])
    moved_D, state = mixer.update(mixer.init(), Signals(falling_UT, impact_DT))
    assert moved_D[0] > 0.5
    rising_UT = np.array([[2.0, 2.0], [2.1, 2.2], [2.3, 2.4]])
    stayed_D, _ = mixer.update(state, Signals(rising_UT, impact_DT))
    np.testing.assert_array_equal(stayed_D, moved_D)
