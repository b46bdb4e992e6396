"""What every strategy promises, whatever it is told: over each mixer and each preset and update of dids."""

import math
from dataclasses import fields, replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from llamafactory_dids import mixers
from llamafactory_dids.core import fisher
from llamafactory_dids.mixers import Mixer, Signals, base, create, names
from llamafactory_dids.mixers.base import RunRecord
from llamafactory_dids.mixers.dids_options import PRESETS, UPDATES

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in names()},
    **{f"dids-{preset}": ("dids", {"preset": preset}) for preset in PRESETS},
    **{f"dids-raw-{update}": ("dids", {"task_weights": "raw", "update": update}) for update in UPDATES},
    "dids-proportional": ("dids", {"init": "proportional", "floor": 0.3}),
    "dids-importance": ("dids", {"init": "importance", "update": "exponentiated", "impact_normalize": "none"}),
    "dids-no-trajectory": ("dids", {"preset": "paper", "trajectory": False}),
    "dga-dot": ("dga", {"similarity": "dot"}),
    "doge-dot": ("doge", {"similarity": "dot"}),
    "doge-main": ("doge", {"runs": 1}),
    "doremi-proxy": ("doremi", {"runs": 1}),
    "doremi-main": ("doremi", {"runs": 2}),
    "doremi-domains": ("doremi", {"target": "domains"}),
    "doremi-domains-proxy": ("doremi", {"target": "domains", "runs": 1, "floor": 0.02}),
    "velocitune-main": ("velocitune", {"runs": 1}),
    "importance-floor": ("importance", {"floor": 0.2}),
    "balance-sharp": ("balance", {"eta": 5.0, "floor": 0.2}),
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)

HOSTILE = st.sampled_from([0.0, 1.0, -1.0, 1e30, -1e30, 1e300, math.nan, math.inf, -math.inf]) | st.floats(-2, 2)


def make(variant: str, sizes_D: np.ndarray, num_tasks: int, **more: Any) -> Mixer:
    """The variant over domains of these sizes; permuted sizes give the permuted mixer."""
    name, options = VARIANTS[variant]
    given = {"sizes_D": sizes_D, **inputs(np.asarray(sizes_D, dtype=float), num_tasks), **options, **more}
    given["proxy_runs"] = given["proxy_runs"][: given.pop("runs", 0)]
    accepted = mixers.options(name)
    return create(name, len(sizes_D), num_tasks, **{key: value for key, value in given.items() if key in accepted})


def inputs(sizes_D: np.ndarray, num_tasks: int) -> dict[str, Any]:
    """What a factory is given beside its options, each of it a function of the sizes alone."""
    history_UD = np.stack([(sizes_D + shift) / (sizes_D + shift).sum() for shift in (1, 9, 3, 5, 2)])
    falling_UT = 1 + 2 * np.exp(-0.3 * np.arange(5))[:, None] * np.arange(1, num_tasks + 1)
    counts_TD = np.arange(1, num_tasks + 1)[:, None] * sizes_D  # a function of the sizes, as all of it is
    record = RunRecord(np.arange(5) * 100.0, history_UD, falling_UT)
    schedule = {"points_K": [0.2, 0.5, 0.9], "mixtures_KD": history_UD[:3]}
    return {"probabilities_D": history_UD[0], "task_samples_TD": counts_TD, "proxy_runs": [record, record], **schedule}


def floor_of(variant: str) -> float:
    name, options = VARIANTS[variant]
    if name == "dids":
        return options.get("floor", PRESETS[options.get("preset", "default")]["floor"])
    floors = {"importance-floor": 0.2, "doremi-proxy": 1e-3, "doremi-domains-proxy": 0.02}
    return (floors | {"balance": 0.05, "balance-sharp": 0.2}).get(variant, 0.0)


def run(mixer: Mixer, stream: list[Signals]) -> list[np.ndarray]:
    """The probabilities at the start and after each update."""
    state = mixer.init()
    trace = [state.probabilities_D]
    for signals in stream:
        p_D, state = mixer.update(state, signals)
        assert np.array_equal(p_D, state.probabilities_D)
        trace.append(p_D)
    return trace


def signals_of(
    losses_UT: np.ndarray, impact_DT: np.ndarray, windows: int = 1, extra_D: np.ndarray | None = None
) -> Signals:
    """All that can be measured, made of losses, impacts and a value for each domain (ones unless given)."""
    num_domains, num_tasks = impact_DT.shape
    extra_D = np.ones(num_domains) if extra_D is None else extra_D
    with np.errstate(all="ignore"):
        covariance_DTT = 0.01 * impact_DT[:, :, None] * impact_DT[:, None, :]
        gram_DD = np.outer(extra_D, extra_D)
    return Signals(
        losses_UT,
        impact_DT,
        impact_covariance_DTT=covariance_DTT,
        sample_weights_D=extra_D,
        domain_gram_DD=gram_DD,
        domain_losses_D=extra_D,
        excess_losses_T=losses_UT[-1],
        excess_losses_D=extra_D,
        samples_seen=100 * windows,
        progress=0.5,
    )


def permuted(stream: list[Signals], order: list[int]) -> list[Signals]:
    return [
        replace(
            s,
            impact_DT=s.impact_DT[order],
            impact_covariance_DTT=s.impact_covariance_DTT[order],
            sample_weights_D=s.sample_weights_D[order],
            domain_gram_DD=s.domain_gram_DD[order][:, order],
            domain_losses_D=s.domain_losses_D[order],
            excess_losses_D=s.excess_losses_D[order],
        )
        for s in stream
    ]


def arrays(signals: Signals) -> list[np.ndarray]:
    return [x for x in vars(signals).values() if isinstance(x, np.ndarray)]


@st.composite
def situations(draw: st.DrawFn, values: st.SearchStrategy[float] = HOSTILE) -> tuple[np.ndarray, int, list[Signals]]:
    """(sizes_D, num_tasks, stream): one to five domains, one to three tasks, up to six updates."""
    num_domains, num_tasks, num_updates = (draw(st.integers(1, n)) for n in (5, 3, 6))
    sizes_D = np.array(draw(st.lists(st.integers(1, 9), min_size=num_domains, max_size=num_domains)))

    def table(rows: int, columns: int = num_tasks) -> np.ndarray:
        flat = draw(st.lists(values, min_size=rows * columns, max_size=rows * columns))
        return np.array(flat).reshape(rows, columns)

    losses_UT = table(num_updates + 1)
    stream = [
        signals_of(losses_UT[: u + 2], table(num_domains), u + 1, table(1, num_domains)[0]) for u in range(num_updates)
    ]
    stream = [replace(signals, progress=u / num_updates) for u, signals in enumerate(stream)]
    return sizes_D, num_tasks, stream


@every_variant
@settings(max_examples=20, deadline=None)
@given(situation=situations())
def test_probabilities_are_on_the_simplex_and_above_the_floor_whatever_the_signals(variant, situation):
    sizes_D, num_tasks, stream = situation
    for p_D in run(make(variant, sizes_D, num_tasks), stream):
        assert p_D.shape == sizes_D.shape and p_D.dtype == np.float64
        assert abs(math.fsum(p_D) - 1) < 1e-12, p_D
        assert (p_D >= floor_of(variant) / len(p_D)).all(), p_D


@every_variant
@settings(max_examples=12, deadline=None)
@given(situation=situations(), random=st.randoms(use_true_random=False))
def test_a_permutation_of_the_domains_permutes_the_probabilities(variant, situation, random):
    sizes_D, num_tasks, stream = situation
    order = random.sample(range(len(sizes_D)), len(sizes_D))
    straight = run(make(variant, sizes_D, num_tasks), stream)
    turned = run(make(variant, sizes_D[order], num_tasks), permuted(stream, order))
    for p_D, turned_D in zip(straight, turned, strict=True):
        np.testing.assert_allclose(turned_D, p_D[order], atol=1e-12)


@every_variant
@settings(max_examples=8, deadline=None)
@given(situation=situations(), cut=st.integers(0, 6))
def test_a_state_restored_from_disk_goes_on_exactly(variant, situation, cut, tmp_path_factory):
    sizes_D, num_tasks, stream = situation
    path = tmp_path_factory.mktemp("state") / "dids_state.safetensors"
    mixer = make(variant, sizes_D, num_tasks)
    state = mixer.init()
    for signals in stream[:cut]:
        _, state = mixer.update(state, signals)
    save_file(state._asdict(), path)
    mixer = make(variant, sizes_D, num_tasks)
    restored = mixer.init()._replace(**load_file(path))
    for signals in stream[cut:]:
        _, state = mixer.update(state, signals)
        _, restored = mixer.update(restored, signals)
    for field, array in state._asdict().items():
        assert isinstance(array, np.ndarray)
        assert np.array_equal(array, getattr(restored, field)), field


@every_variant
@settings(max_examples=8, deadline=None)
@given(situation=situations())
def test_an_update_changes_neither_its_arguments_nor_its_answer(variant, situation):
    sizes_D, num_tasks, stream = situation
    mixer = make(variant, sizes_D, num_tasks)
    state = mixer.init()
    for signals in stream:
        before = [x.copy() for x in (*state, *arrays(signals))]
        first_D, after = mixer.update(state, signals)
        first_D = first_D.copy()
        again_D, _ = mixer.update(state, signals)
        assert np.array_equal(first_D, again_D)
        for x, y in zip((*state, *arrays(signals)), before, strict=True):
            assert np.array_equal(x, y, equal_nan=True)
        state = after


@every_variant
@pytest.mark.parametrize("value", [0.0, math.nan])
def test_without_anything_usable_the_mixture_stays(variant, value):
    mixer = make(variant, np.array([3, 1, 2]), 2)
    moving = signals_of(np.array([[3.0, 2], [2, 1]]), np.array([[1.0, 2], [3, -1], [0, 4]]))
    moved_D, state = mixer.update(mixer.init(), moving)
    losses_UT = np.array([[3.0, 2], [2, 1], [1, 1]])
    nothing = signals_of(losses_UT, np.full((3, 2), value), 2, np.full(3, math.nan))
    stayed_D, _ = mixer.update(state, nothing)
    assert np.array_equal(moved_D, stayed_D)


def losses() -> np.ndarray:
    return np.array([[3.0, 2.5, 4], [2, 2.4, 3]])


def impacts() -> np.ndarray:
    return np.array([[0.1, 0.2, 0.7], [0.3, -0.1, 0.1], [0.1, 0.4, 0.2]])


def assert_third_task_is_left_out(variant, losses_UT, impact_DT):
    """As if it were not there."""
    alone = {"eta": 4 / 3} if VARIANTS[variant][0] in ("dga", "doge") else {}  # 4 / T unless given
    two, three = make(variant, np.array([3, 1, 2]), 2, **alone), make(variant, np.array([3, 1, 2]), 3)
    expected_D, _ = two.update(two.init(), signals_of(losses()[:, :2], impacts()[:, :2]))
    p_D, _ = three.update(three.init(), signals_of(losses_UT, impact_DT))
    np.testing.assert_allclose(p_D, expected_D, rtol=1e-12)


@every_variant
def test_a_task_with_a_broken_impact_counts_as_if_it_were_not_there(variant):
    impact_DT = impacts()
    impact_DT[1, 2] = math.nan
    assert_third_task_is_left_out(variant, losses(), impact_DT)


@pytest.mark.parametrize(
    "variant",
    [v for v in VARIANTS if (n := make(v, np.ones(3), 3).needs).task_losses or n.excess_losses == "tasks"],
)
def test_a_task_without_a_loss_counts_as_if_it_were_not_there(variant):
    losses_UT = losses()
    losses_UT[1, 2] = math.nan
    assert_third_task_is_left_out(variant, losses_UT, impacts())


@every_variant
def test_a_task_that_vanishes_and_comes_back_breaks_nothing(variant):
    mixer, gone_DT = make(variant, np.array([3, 1, 2]), 3), impacts()
    gone_DT[:, 2] = 0.0
    falling_UT = np.concatenate([losses(), losses()[1:] - 0.5, losses()[1:] - 0.7])
    falling_UT[2, 2] = math.nan
    trace = run(
        mixer, [signals_of(falling_UT[: u + 2], x_DT, u + 1) for u, x_DT in enumerate([impacts(), gone_DT, impacts()])]
    )
    assert all(np.isfinite(p_D).all() and abs(math.fsum(p_D) - 1) < 1e-12 for p_D in trace)
    if mixer.needs.impact and VARIANTS[variant] != ("dids", {"preset": "paper", "trajectory": False}):
        assert not np.array_equal(trace[2], trace[1]), "the other tasks still count"


@every_variant
def test_an_exhausted_domain_which_has_no_gradient_and_no_loss_is_no_reason_to_stop(variant):
    mixer, impact_DT, seen_D = make(variant, np.array([3, 1, 2]), 3), impacts(), np.array([2.0, math.nan, 1.0])
    impact_DT[1] = 0.0
    trace = run(mixer, [signals_of(losses(), impact_DT, u + 1, seen_D) for u in range(20)])
    assert np.isfinite(trace).all()
    if mixer.needs.measures and mixer.needs.impact:
        assert not np.array_equal(trace[-1], trace[0])


@every_variant
def test_what_is_needed_is_enough(variant):
    mixer = make(variant, np.array([3, 1, 2]), 2)
    everything = signals_of(np.array([[3.0, 2], [2, 1]]), np.eye(3)[:, :2])
    needs = mixer.needs
    asked = {
        "task_losses_UT": needs.task_losses,
        "impact_DT": needs.impact is not None,
        "impact_covariance_DTT": bool(needs.impact and needs.impact.errors),
        "sample_weights_D": bool(needs.impact and needs.impact.errors),
        "domain_gram_DD": needs.domain_gram,
        "domain_losses_D": needs.domain_losses,
        "excess_losses_T": needs.excess_losses == "tasks",
        "excess_losses_D": needs.excess_losses == "domains",
        "samples_seen": True,
        "progress": needs.progress,
    }
    assert set(asked) == {field.name for field in fields(Signals)}
    given = Signals(**{name: getattr(everything, name) for name, wanted in asked.items() if wanted})
    p_D, _ = mixer.update(mixer.init(), given)
    assert np.array_equal(p_D, mixer.update(mixer.init(), everything)[0])


@every_variant
def test_a_mixer_made_of_the_options_that_it_reports_does_the_same(variant):
    mixer = make(variant, np.array([3, 1, 2]), 3)
    reported = dict(getattr(mixer, "options", {}))
    accepted = mixers.options(VARIANTS[variant][0])
    assert set(reported) <= set(accepted), "each is a key of the YAML"
    again = make(variant, np.array([3, 1, 2]), 3, **reported)
    stream = [signals_of(losses(), impacts() / (u + 1), u + 1, np.array([2.0, 1, 3])) for u in range(3)]
    assert np.array_equal(run(mixer, stream), run(again, stream))
    assert getattr(again, "options", {}) == reported


@every_variant
def test_the_impact_asked_for_is_one_that_can_be_measured(variant):
    impact = make(variant, np.array([1, 1]), 1).needs.impact
    assert impact is None or (impact.kind in fisher.KINDS and impact.normalize in fisher.NORMALIZATIONS)


def test_the_names_of_impacts_are_those_of_the_core():
    assert base.IMPACT_KINDS == fisher.KINDS
    assert base.IMPACT_NORMALIZATIONS == fisher.NORMALIZATIONS


def test_a_schedule_is_on_the_line_between_its_points_and_stays_before_the_first_and_after_the_last():
    mixer = create("schedule", 2, 0, points_K=[0.2, 0.4, 0.8], mixtures_KD=[[1, 0], [0.5, 0.5], [0, 1]])
    state = mixer.init()
    assert state.probabilities_D.tolist() == [1, 0]
    for progress, first in ((0.1, 1), (0.2, 1), (0.3, 0.75), (0.4, 0.5), (0.5, 0.375), (0.8, 0), (0.95, 0)):
        p_D, state = mixer.update(state, Signals(progress=progress))
        assert p_D == pytest.approx([first, 1 - first])
    assert mixer.needs.measures and not mixer.needs.tasks and not mixer.needs.gradients


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("did", 2, 1, {}), "mix_strategy: got 'did', allowed: dids, dga, doge"),
        (("uniform", 2, 1, {"eta": 1}), "uniform: got unknown option 'eta', allowed: none"),
        (("dids", 2, 1, {"betta": 1}), "dids: got unknown option 'betta', allowed: preset, impact"),
        (("uniform", 0, 1, {}), "got 0 domains"),
        (("dids", 2, 0, {}), "dids_tasks: got none"),
        (("dga", 2, 0, {}), "dids_tasks: got none"),
        (("static", 2, 1, {}), "dids_probs: got none"),
        (("static", 2, 1, {"probabilities_D": [0.5, 0.6]}), "dids_probs: got values that sum to 1.1"),
        (("proportional", 2, 1, {}), "sizes_D: got None"),
        (("proportional", 2, 1, {"sizes_D": [1, 2, 3]}), "sizes_D: got .*allowed: 2 sample counts"),
        (("proportional", 2, 1, {"sizes_D": [0, 0]}), "not all zero"),
        (("doremi", 2, 0, {"sizes_D": [1, 1]}), "dids_tasks: got none"),
        (("doremi", 2, 1, {}), "sizes_D: got None.*the reference run of doremi"),
        (("velocitune", 2, 0, {}), "dids_tasks: got none"),
        (("velocitune", 2, 1, {}), "sizes_D: got None.*the pilot run of velocitune"),
        (("importance", 2, 0, {}), "dids_tasks: got none"),
        (("importance", 2, 1, {}), "task_samples_TD: got None"),
        (("importance", 2, 1, {"task_samples_TD": [[0, 0]]}), r"task_samples_TD: got .*0.0.*, allowed: 1 x 2 c"),
        (("schedule", 2, 0, {}), "dids_schedule: got none"),
        (("schedule", 2, 0, {"points_K": [0, 0], "mixtures_KD": [[1, 0], [0, 1]]}), "dids_schedule: got the points"),
        (("schedule", 1, 0, {"points_K": [0, math.nan], "mixtures_KD": [[1], [1]]}), "dids_schedule: got the points"),
        (("schedule", 2, 0, {"points_K": [0], "mixtures_KD": [[1, 1]]}), "dids_schedule: got values that sum to 2"),
        (("balance", 2, 0, {}), "sizes_D: got None.*mix_strategy 'balance'"),
    ],
)
def test_what_cannot_be_is_refused_with_what_was_received_and_what_is_allowed(arguments, message):
    name, num_domains, num_tasks, options = arguments
    with pytest.raises(ValueError, match=message):
        create(name, num_domains, num_tasks, **options)
