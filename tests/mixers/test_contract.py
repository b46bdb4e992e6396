"""What every strategy promises, whatever it is told: over each mixer and each preset and update of dids."""

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from llamafactory_dids.core import fisher
from llamafactory_dids.mixers import Mixer, Signals, base, create, names
from llamafactory_dids.mixers.dids import PRESETS, UPDATES

VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in names()},
    **{f"dids-{preset}": ("dids", {"preset": preset}) for preset in PRESETS},
    **{f"dids-mixed-{update}": ("dids", {"task_weights": "mixed", "update": update}) for update in UPDATES},
    "dids-proportional": ("dids", {"init": "proportional", "floor": 0.3}),
    "dids-no-trajectory": ("dids", {"preset": "paper", "trajectory": False}),
    "dga-dot": ("dga", {"similarity": "dot"}),
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)

HOSTILE = st.sampled_from([0.0, 1.0, -1.0, 1e30, -1e30, 1e300, math.nan, math.inf, -math.inf]) | st.floats(
    -2, 2
)


def make(variant: str, sizes_D: np.ndarray, num_tasks: int) -> Mixer:
    """The variant over domains of these sizes; permuted sizes give the permuted mixer."""
    name, options = VARIANTS[variant]
    if name == "static":
        options = {"probabilities_D": (sizes_D + 1) / (sizes_D + 1).sum()}
    return create(name, len(sizes_D), num_tasks, sizes_D=sizes_D, **options)


def floor_of(variant: str) -> float:
    name, options = VARIANTS[variant]
    return options.get("floor", PRESETS[options.get("preset", "default")]["floor"]) if name == "dids" else 0.0


def run(mixer: Mixer, stream: list[Signals]) -> list[np.ndarray]:
    """The probabilities at the start and after each update."""
    state = mixer.init()
    trace = [state.probabilities_D]
    for signals in stream:
        p_D, state = mixer.update(state, signals)
        assert np.array_equal(p_D, state.probabilities_D)
        trace.append(p_D)
    return trace


def permuted(stream: list[Signals], order: list[int]) -> list[Signals]:
    return [Signals(s.task_losses_UT, s.impact_DT[order]) for s in stream]


@st.composite
def situations(
    draw: st.DrawFn, values: st.SearchStrategy[float] = HOSTILE
) -> tuple[np.ndarray, int, list[Signals]]:
    """(sizes_D, num_tasks, stream): one to five domains, one to three tasks, up to six updates."""
    num_domains, num_tasks, num_updates = (draw(st.integers(1, n)) for n in (5, 3, 6))
    sizes_D = np.array(draw(st.lists(st.integers(1, 9), min_size=num_domains, max_size=num_domains)))

    def table(rows: int) -> np.ndarray:
        flat = draw(st.lists(values, min_size=rows * num_tasks, max_size=rows * num_tasks))
        return np.array(flat).reshape(rows, num_tasks)

    losses_UT = table(num_updates + 1)
    return sizes_D, num_tasks, [Signals(losses_UT[: u + 2], table(num_domains)) for u in range(num_updates)]


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
        before = [x.copy() for x in (*state, signals.task_losses_UT, signals.impact_DT)]
        first_D, after = mixer.update(state, signals)
        first_D = first_D.copy()
        again_D, _ = mixer.update(state, signals)
        assert np.array_equal(first_D, again_D)
        for x, y in zip((*state, signals.task_losses_UT, signals.impact_DT), before, strict=True):
            assert np.array_equal(x, y, equal_nan=True)
        state = after


@every_variant
@pytest.mark.parametrize("value", [0.0, math.nan])
def test_without_a_usable_task_the_mixture_stays(variant, value):
    mixer = make(variant, np.array([3, 1, 2]), 2)
    moved, state = mixer.update(
        mixer.init(), Signals(np.array([[3.0, 2], [2, 1]]), np.array([[1.0, 2], [3, -1], [0, 4]]))
    )
    stayed, _ = mixer.update(state, Signals(np.array([[3.0, 2], [2, 1], [1, 1]]), np.full((3, 2), value)))
    assert np.array_equal(moved, stayed)


def losses() -> np.ndarray:
    return np.array([[3.0, 2.5, 4], [2, 2.4, 3]])


def impacts() -> np.ndarray:
    return np.array([[0.1, 0.2, 0.7], [0.3, -0.1, 0.1], [0.1, 0.4, 0.2]])


def without_third_task(variant: str) -> np.ndarray:
    sizes_D = np.array([3, 1, 2])
    mixer = make(variant, sizes_D, 2)
    if VARIANTS[variant][0] == "dga":  # whose eta is 4 / T unless given
        mixer = create("dga", 3, 2, eta=4 / 3, **VARIANTS[variant][1])
    return mixer.update(mixer.init(), Signals(losses()[:, :2], impacts()[:, :2]))[0]


@every_variant
def test_a_task_with_a_broken_impact_counts_as_if_it_were_not_there(variant):
    impact_DT = impacts()
    impact_DT[1, 2] = math.nan
    mixer = make(variant, np.array([3, 1, 2]), 3)
    p_D, _ = mixer.update(mixer.init(), Signals(losses(), impact_DT))
    np.testing.assert_allclose(p_D, without_third_task(variant), rtol=1e-12)


@pytest.mark.parametrize("variant", [v for v in VARIANTS if make(v, np.ones(3), 3).needs.task_losses])
def test_a_task_without_a_loss_counts_as_if_it_were_not_there(variant):
    losses_UT = losses()
    losses_UT[1, 2] = math.nan
    mixer = make(variant, np.array([3, 1, 2]), 3)
    p_D, _ = mixer.update(mixer.init(), Signals(losses_UT, impacts()))
    np.testing.assert_allclose(p_D, without_third_task(variant), rtol=1e-12)


@every_variant
def test_what_is_needed_is_enough(variant):
    mixer = make(variant, np.array([3, 1, 2]), 2)
    losses_UT = np.array([[3.0, 2], [2, 1]]) if mixer.needs.task_losses else None
    impact_DT = np.eye(3)[:, :2] if mixer.needs.impact else None
    p_D, _ = mixer.update(mixer.init(), Signals(losses_UT, impact_DT))
    everything = Signals(np.array([[3.0, 2], [2, 1]]), np.eye(3)[:, :2])
    assert np.array_equal(p_D, mixer.update(mixer.init(), everything)[0])


@every_variant
def test_the_impact_asked_for_is_one_that_can_be_measured(variant):
    impact = make(variant, np.array([1, 1]), 1).needs.impact
    assert impact is None or (impact.kind in fisher.KINDS and impact.normalize in fisher.NORMALIZATIONS)


def test_the_names_of_impacts_are_those_of_the_core():
    assert base.IMPACT_KINDS == fisher.KINDS
    assert base.IMPACT_NORMALIZATIONS == fisher.NORMALIZATIONS


def test_fixed_mixtures_are_what_they_say():
    def start(name: str, **options: Any) -> list[float]:
        return create(name, 4, 0, sizes_D=[1, 2, 3, 4], **options).init().probabilities_D.tolist()

    assert start("uniform") == [0.25] * 4
    assert start("proportional") == pytest.approx([0.1, 0.2, 0.3, 0.4])
    assert start("static", probabilities_D=[0.5, 0.5, 0, 0]) == [0.5, 0.5, 0, 0]


@pytest.mark.parametrize("similarity", ["dot", "cosine"])
def test_dga_multiplies_by_the_exponential_of_the_summed_alignment(similarity):
    impact_DT = np.array([[1.0, 0.5], [-0.5, 0.2]])
    mixer = create("dga", 2, 2, similarity=similarity, eta=2.0, ema_beta=0.25)
    assert mixer.needs.impact == ("gradient", similarity)
    p_D, state = mixer.update(mixer.init(), Signals(impact_DT=impact_DT))
    a, b = math.exp(2 * 1.5), math.exp(2 * -0.3)
    assert p_D[0] == pytest.approx(0.25 * 0.5 + 0.75 * a / (a + b), rel=1e-12)
    assert state.alignment_D.tolist() == pytest.approx([1.5, -0.3])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("did", 2, 1, {}), "mix_strategy: got 'did', allowed: dids, dga, uniform"),
        (("uniform", 2, 1, {"eta": 1}), "uniform: got unknown option 'eta', allowed: sizes_D"),
        (("dids", 2, 1, {"betta": 1}), "dids: got unknown option 'betta', allowed: preset, impact"),
        (("uniform", 0, 1, {}), "got 0 domains"),
        (("dids", 2, 0, {}), "dids_tasks: got none"),
        (("dga", 2, 0, {}), "dids_tasks: got none"),
        (("dga", 2, 1, {"similarity": "l2"}), "dids_dga_similarity: got 'l2', allowed: dot, cosine"),
        (("dga", 2, 1, {"eta": -1}), "dids_eta: got -1, allowed: a number above 0"),
        (("static", 2, 1, {}), "dids_probs: got none"),
        (("static", 2, 1, {"probabilities_D": [0.5, 0.6]}), "dids_probs: got values that sum to 1.1"),
        (("proportional", 2, 1, {}), "sizes_D: got None"),
        (("proportional", 2, 1, {"sizes_D": [1, 2, 3]}), "sizes_D: got .*allowed: 2 sample counts"),
        (("proportional", 2, 1, {"sizes_D": [0, 0]}), "not all zero"),
    ],
)
def test_what_cannot_be_is_refused_with_what_was_received_and_what_is_allowed(arguments, message):
    name, num_domains, num_tasks, options = arguments
    with pytest.raises(ValueError, match=message):
        create(name, num_domains, num_tasks, **options)
