"""Each strategy beyond dids against a reference written from its own paper (tests/reference), on random signals."""

import math

import numpy as np
import pytest
import torch

from llamafactory_dids.core.fisher import gram, impact
from llamafactory_dids.mixers import Impact, Mixer, Signals, create
from llamafactory_dids.mixers.base import RunRecord
from llamafactory_dids.mixers.velocitune import predicted_loss
from llamafactory_dids.stages.means import nearest_domains
from tests.reference import dids as reference
from tests.reference import gradient_methods as gradients
from tests.reference import loss_methods as losses

D, T, P, NUM_UPDATES = 5, 3, 20, 6
SIMILARITIES = {"dot": gradients.inner, "cosine": gradients.cosine}
SIZES_D = [5, 1, 2, 8, 4]


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(11)


@pytest.fixture
def stream(rng) -> list[tuple[np.ndarray, np.ndarray]]:
    """(domain_gradients_DP, task_gradients_TP) of each update, correlated, so that the signs are mixed."""
    common_P = rng.normal(size=P)
    return [
        (rng.normal(size=(D, P)) + 0.3 * common_P, rng.normal(size=(T, P)) + 0.3 * common_P) for _ in range(NUM_UPDATES)
    ]


def trained_with(history_UD: list[np.ndarray]) -> RunRecord:
    """The record of a run with windows of equal size; the last row is what a next window would have had."""
    samples_U = np.arange(len(history_UD), dtype=float) * 100
    return RunRecord(samples_U, np.array(history_UD), np.zeros((len(history_UD), T)))


def follow(mixer: Mixer, stream: list[Signals]) -> list[np.ndarray]:
    state = mixer.init()
    trace = [state.probabilities_D]
    for signals in stream:
        p_D, state = mixer.update(state, signals)
        trace.append(p_D)
    return trace


def measured(mixer: Mixer, stream: list) -> list[Signals]:
    kind, normalize, _ = mixer.needs.impact
    return [Signals(impact_DT=impact(domains, tasks, None, kind, normalize)) for domains, tasks in stream]


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_dga_is_its_papers_rule(stream, similarity):
    mixer = create("dga", D, T, similarity=similarity, eta=0.7, ema_beta=0.2)
    expected = [1 / D] * D
    for (domains, tasks), p_D in zip(stream, follow(mixer, measured(mixer, stream))[1:], strict=True):
        expected = gradients.dga_update(expected, domains.tolist(), tasks.tolist(), SIMILARITIES[similarity], 0.7, 0.2)
        assert p_D == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("similarity", SIMILARITIES)
def test_doge_is_its_papers_rule_and_hands_on_the_mean(stream, similarity):
    proxy = create("doge", D, T, similarity=similarity, eta=0.7)
    assert proxy.needs.proxy_run == ("proxy", 1.0, None)
    trace = follow(proxy, measured(proxy, stream))
    history = [[1 / D] * D]
    for (domains, tasks), p_D in zip(stream, trace[1:], strict=True):
        step = gradients.doge_update(history[-1], domains.tolist(), tasks.tolist(), SIMILARITIES[similarity], 0.7)
        history.append(step)
        assert p_D == pytest.approx(step, rel=1e-9)
    main = create("doge", D, T, similarity=similarity, eta=0.7, proxy_runs=[trained_with(trace)])
    assert main.needs.proxy_run is None and not main.needs.measures
    assert main.init().probabilities_D == pytest.approx(gradients.doge_mixture(history[:-1]), rel=1e-9)


def test_balance_is_its_papers_rule_raised_to_the_floor(stream):
    shares = [size / sum(SIZES_D) for size in SIZES_D]
    mixer = create("balance", D, T, sizes_D=SIZES_D, eta=1.3, floor=0.4)
    signals = [Signals(domain_gram_DD=gram(torch.tensor(domains))) for domains, _ in stream]
    trace = follow(mixer, signals)
    assert trace[0].tolist() == [1 / D] * D
    for (domains, _), p_D in zip(stream, trace[1:], strict=True):
        expected = reference.raised(gradients.balance_update(domains.tolist(), shares, 1.3), 0.4)
        assert p_D == pytest.approx(expected, rel=1e-9)


def test_balance_gives_a_domain_without_a_gradient_the_mean_score(stream):
    domains_DP = stream[0][0].copy()
    domains_DP[2] = 0.0
    mixer = create("balance", D, T, sizes_D=SIZES_D, floor=0.0)
    p_D, _ = mixer.update(mixer.init(), Signals(domain_gram_DD=gram(torch.tensor(domains_DP))))
    logs_D = np.log(p_D)
    assert logs_D[2] == pytest.approx(np.delete(logs_D, 2).mean())


def test_importance_is_the_histogram_of_the_nearest_centroids(rng):
    features_NK, task_samples_NK = rng.normal(size=(2, 60, 4)).astype(np.float32)
    domains_N = np.arange(60) % D
    centroids = [features_NK[domains_N == domain].mean(axis=0).tolist() for domain in range(D)]
    expected = gradients.importance(task_samples_NK.tolist(), centroids)
    read, written_N = features_NK.__getitem__, np.ones(60, dtype=bool)
    nearest_N = nearest_domains(read, written_N, domains_N, D, task_samples_NK)
    counts_TD = np.stack([np.bincount(nearest_N[np.arange(60) % T == task], minlength=D) for task in range(T)])
    assert create("importance", D, T, task_samples_TD=counts_TD).init().probabilities_D == pytest.approx(expected)
    floored_D = create("importance", D, T, task_samples_TD=counts_TD, floor=0.9).init().probabilities_D
    assert floored_D == pytest.approx(reference.raised(expected, 0.9)) != pytest.approx(expected)


def doremi_proxy(**options) -> Mixer:
    reference = trained_with([np.full(D, 1 / D)] * 3)
    return create("doremi", D, T, sizes_D=SIZES_D, proxy_runs=[reference], **options)


@pytest.mark.parametrize("target", ["tasks", "domains"])
def test_doremi_first_runs_a_reference_in_proportion_to_the_sizes(target):
    mixer = create("doremi", D, T, sizes_D=SIZES_D, target=target)
    assert mixer.needs.proxy_run == ("reference", 1.0, target) and not mixer.needs.measures
    assert mixer.init().probabilities_D == pytest.approx([size / sum(SIZES_D) for size in SIZES_D])


def test_doremi_on_domains_is_algorithm_1(rng):
    mixer = doremi_proxy(target="domains")
    assert mixer.needs.excess_losses == "domains" and mixer.needs.impact is None
    expected, stream = [[1 / D] * D], []
    for _ in range(NUM_UPDATES):
        tokens_D8, reference_D8 = rng.gamma(4, 0.5, size=(2, D, 8)).tolist()
        excess = [losses.excess_loss(a, b) for a, b in zip(tokens_D8, reference_D8, strict=True)]
        stream.append(Signals(excess_losses_D=np.array(excess)))
        expected.append(losses.doremi_update(expected[-1], excess))
    trace = follow(mixer, stream)
    assert np.array(trace) == pytest.approx(np.array(expected), rel=1e-9)
    records = [trained_with(trace[:2]), trained_with(trace)]
    main = create("doremi", D, T, sizes_D=SIZES_D, target="domains", proxy_runs=records)
    assert main.init().probabilities_D == pytest.approx(gradients.doge_mixture(expected[:-1]), rel=1e-9)


def test_doremi_on_tasks_shares_each_excess_loss_out_over_the_domains_aligned_with_it(rng, stream):
    mixer = doremi_proxy(eta=0.5, floor=0.01)
    assert mixer.needs.impact == Impact("gradient", "cosine") and mixer.needs.excess_losses == "tasks"
    expected, signals = [[1 / D] * D], []
    for (domains, tasks), excess in zip(stream, rng.gamma(2, 0.5, size=(NUM_UPDATES, T)).tolist(), strict=True):
        cosines = [[gradients.cosine(g, h) for h in tasks] for g in domains]
        signals.append(Signals(impact_DT=np.array(cosines), excess_losses_T=np.array(excess)))
        expected.append(losses.doremi_update(expected[-1], losses.shared_out(cosines, excess), eta=0.5, c=0.01))
    assert np.array(follow(mixer, signals)) == pytest.approx(np.array(expected), rel=1e-9)


def test_velocitune_is_its_papers_rule_with_targets_from_the_pilot(stream):
    start_T, target_T, speed_T = np.array([4.0, 3, 5]), np.array([1.0, 2, 3]), np.array([0.1, 0.4, 0.9])
    samples_U = np.arange(0, 600, 100.0)
    pilot_UT = np.stack([[4.0, 3, 5], *(target_T + 0.5 * ((n / 1000) ** -0.5 - 1) for n in samples_U[1:])])
    pilot = RunRecord(samples_U, np.full((6, D), 1 / D), pilot_UT)
    mixer = create("velocitune", D, T, sizes_D=SIZES_D, proxy_runs=[pilot], proxy_share=0.5)
    assert mixer.targets_T == pytest.approx(target_T, abs=1e-3)  # the pilot ended at 500, the run has 1000
    losses_UT = target_T + (start_T - target_T) * np.exp(-np.arange(NUM_UPDATES + 1)[:, None] * speed_T)
    expected, signals = [[1 / D] * D], []
    for u, (domains, tasks) in enumerate(stream):
        cosines = [[gradients.cosine(g, h) for h in tasks] for g in domains]
        now = losses_UT[u + 1]
        speeds = [losses.velocity(*x) for x in zip(start_T, now, mixer.targets_T, strict=True)]
        signals.append(Signals(losses_UT[: u + 2], np.array(cosines)))
        expected.append(losses.velocitune_update(expected[-1], losses.shared_out(cosines, speeds)))
    assert np.array(follow(mixer, signals)) == pytest.approx(np.array(expected), rel=1e-9)


def test_velocitune_first_runs_a_pilot_on_half_of_the_data_in_proportion_to_the_sizes():
    pilot = create("velocitune", D, T, sizes_D=SIZES_D)
    assert pilot.needs.proxy_run == ("pilot", 0.5, None) and pilot.needs.task_losses
    assert pilot.init().probabilities_D == pytest.approx([size / sum(SIZES_D) for size in SIZES_D])


@pytest.mark.parametrize("b", [0.1, 0.5, 1.5])
def test_the_predicted_loss_is_that_of_the_power_law_through_the_losses(b):
    n_U = np.arange(0, 900, 100.0)
    losses_U = np.array([9.0, *(1.5 + 3 * (n_U[1:] / 100) ** -b)])
    assert predicted_loss(n_U, losses_U, 2000) == pytest.approx(1.5 + 3 * 20**-b, rel=2e-3)
    losses_U[3] = math.nan
    assert predicted_loss(n_U, losses_U, 2000) == pytest.approx(1.5 + 3 * 20**-b, rel=2e-3)


def test_the_predicted_loss_of_too_few_points_is_the_last_and_of_none_is_unknown():
    assert predicted_loss(np.array([0.0, 100, 200]), np.array([5.0, 4, 3]), 1000) == 3.0
    assert math.isnan(predicted_loss(np.array([0.0]), np.array([5.0]), 1000))


def test_odm_is_algorithm_1_where_a_window_is_many_turns(rng):
    mixer, bandit = create("odm", D, T), losses.Odm(D)
    state = mixer.init()
    for u in range(NUM_UPDATES):
        seen_D = rng.gamma(4, 0.5, size=D)
        seen_D[rng.integers(D)] = math.nan  # not drawn in this window
        p_D, state = mixer.update(state, Signals(domain_losses_D=seen_D, samples_seen=32 * (u + 1)))
        drawn = {i: loss for i, loss in enumerate(seen_D.tolist()) if not math.isnan(loss)}
        assert p_D == pytest.approx(bandit.observe(drawn, 32 * (u + 1)), rel=1e-9)
    assert p_D.min() >= state.exploration[0] > 0
