"""A stream of synthetic gradients with domains known to be good, irrelevant and noisy: who gets fed?

Through `core.fisher.impact` as each strategy needs it. A good domain is its task's gradient and noise, an
irrelevant one is orthogonal to all tasks, a noisy one is long and points anywhere. Losses fall alike in any
mixture.
"""

import math
from typing import Any

import numpy as np
import pytest
import torch

from llamafactory_dids.core.fisher import directions, impact
from llamafactory_dids.core.moments import Moments
from llamafactory_dids.mixers import Mixer, Signals, create
from llamafactory_dids.mixers.base import RunRecord
from llamafactory_dids.mixers.dids_options import PRESETS

P, T, N, NUM_UPDATES = 400, 3, 40, 25
GOOD, IRRELEVANT, NOISY = slice(0, 3), slice(3, 6), slice(6, 9)


def unit(x_NP: np.ndarray) -> np.ndarray:
    return x_NP / np.linalg.norm(x_NP, axis=1, keepdims=True)


class Stream:
    """The gradients of one run; each update draws new noise."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        directions_NP = np.linalg.qr(self.rng.normal(size=(P, 2 * T)))[0].T
        self.tasks_TP, self.others_TP = directions_NP[:T], directions_NP[T:]
        self.scale_P = self.rng.lognormal(0, 0.5, P)  # coordinates differ in noise, as layers do

    def noise(self, rows: int) -> np.ndarray:
        return unit(self.rng.normal(size=(rows, P)) * self.scale_P)

    def measure(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """(domain_gradients_DP, task_gradients_TP, fisher_TP) of one update."""
        samples_TNP = np.stack([task_P + 2 * self.noise(N) for task_P in self.tasks_TP])
        good, irrelevant = self.tasks_TP + 0.7 * self.noise(3), self.others_TP + 0.7 * self.noise(3)
        domains_DP = np.concatenate([good, irrelevant, 8 * self.noise(3)])
        fisher_TP = torch.tensor(samples_TNP).float().square().mean(dim=1)
        return torch.tensor(domains_DP), torch.tensor(samples_TNP.mean(axis=1)), fisher_TP


STRATEGIES: dict[str, dict[str, Any]] = {
    **{preset: {"name": "dids", "preset": preset} for preset in PRESETS},
    "dga": {"name": "dga"},
    "dga dot": {"name": "dga", "similarity": "dot", "eta": 1.0},
    "doge": {"name": "doge"},
    "doremi": {"name": "doremi"},
    "doremi domains": {"name": "doremi", "target": "domains"},
    "velocitune": {"name": "velocitune"},
    "importance": {"name": "importance"},
    "odm": {"name": "odm"},
}


class Run:
    """What a run of a strategy on the stream is told, window by window."""

    def __init__(self, seed: int) -> None:
        self.stream, rng = Stream(seed), np.random.default_rng(seed)
        noise_UT = rng.normal(0, 0.01, (NUM_UPDATES + 1, T))
        self.losses_UT = 1 + 2 * np.exp(-np.outer(np.arange(NUM_UPDATES + 1), [0.05, 0.1, 0.2])) + noise_UT
        self.rng = rng

    def train(self, mixer: Mixer) -> RunRecord:
        state, trace = mixer.init(), []
        if not mixer.needs.measures:
            trace = [state.probabilities_D] * (NUM_UPDATES + 1)
        else:
            trace.append(state.probabilities_D)
            for u in range(NUM_UPDATES):
                p_D, state = mixer.update(state, self.signals(mixer, u))
                trace.append(p_D)
        return RunRecord(np.arange(NUM_UPDATES + 1) * 100.0, np.array(trace), self.losses_UT)

    def signals(self, mixer: Mixer, u: int) -> Signals:
        """Nobody learns noise: a noisy domain's loss stays high, with a reference model's as without."""
        domains_DP, tasks_TP, fisher_TP = self.stream.measure()
        needs, learned = mixer.needs, math.exp(-0.1 * u)
        return Signals(
            self.losses_UT[: u + 2],
            *self.impacts(domains_DP, tasks_TP, fisher_TP, needs.impact),
            domain_losses_D=np.array([1 + learned] * 6 + [3.0] * 3) + self.rng.normal(0, 0.05, 9),
            excess_losses_T=np.maximum(self.losses_UT[u + 1] - self.losses_UT[-1], 0),
            excess_losses_D=np.array([learned] * 6 + [0.0] * 3),
            samples_seen=100 * (u + 1),
        )

    def impacts(self, domains_DP, tasks_TP, fisher_TP, asked) -> tuple[np.ndarray | None, np.ndarray | None]:
        """With errors, of ten samples a domain about its mean."""
        if asked is None or not asked.errors:
            return (
                None if asked is None else impact(domains_DP, tasks_TP, fisher_TP, asked.kind, asked.normalize)
            ), None
        moments, towards_TP = Moments(len(domains_DP), T), directions(tasks_TP.float(), fisher_TP, asked.kind)
        for domain, gradient_P in enumerate(domains_DP.float()):
            samples_NP = gradient_P + torch.tensor(2 * self.stream.noise(10), dtype=torch.float32)
            moments.add(torch.full((10,), domain), torch.ones(10), samples_NP @ towards_TP.T)
        return tuple(moments.estimates())

    def nearest(self) -> np.ndarray:
        """How many samples of each task are nearest to each domain's gradient, both at unit length."""
        domains_DP = unit(self.stream.measure()[0].numpy())
        samples_TNP = [task_P + 0.7 * self.stream.noise(N) for task_P in self.stream.tasks_TP]
        return np.stack([np.bincount((x_NP @ domains_DP.T).argmax(axis=1), minlength=9) for x_NP in samples_TNP])


def mean_mixture(strategy: str, seed: int) -> np.ndarray:
    """The mean of the probabilities over the main run: what the model was fed. Offline strategies get their runs."""
    options, runs = dict(STRATEGIES[strategy]), []
    name = options.pop("name")
    if name in ("doge", "doremi", "velocitune"):
        options["proxy_runs"] = runs
    if name == "importance":
        options["task_samples_TD"] = Run(seed).nearest()
    while (mixer := create(name, 9, T, sizes_D=np.ones(9), **options)).needs.proxy_run:
        runs.append(Run(seed + 100 + len(runs)).train(mixer))
    return Run(seed).train(mixer).mean_D()


def shares(p_D: np.ndarray) -> str:
    return f"good {p_D[GOOD].sum():.2f}, irrelevant {p_D[IRRELEVANT].sum():.2f}, noisy {p_D[NOISY].sum():.2f}"


# method.md expects `literal` (it feeds distance) and `authors` (which inverts the ranking) to fail; `odm` and DoReMi
# with its own domains as target look at no task, and so cannot tell good from irrelevant.
FAIL = {"literal", "authors", "odm", "doremi domains"}


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("strategy", sorted(STRATEGIES.keys() - FAIL))
def test_weight_moves_toward_the_domains_that_are_good_for_the_tasks(strategy, seed):
    p_D = mean_mixture(strategy, seed)
    assert p_D[GOOD].sum() > 0.45, shares(p_D)
    assert p_D[GOOD].sum() > 1.5 * max(p_D[IRRELEVANT].sum(), p_D[NOISY].sum()), shares(p_D)


@pytest.mark.parametrize("seed", range(3))
def test_literal_feeds_the_noise(seed):
    p_D = mean_mixture("literal", seed)
    assert p_D[GOOD].sum() < 0.2 < 0.5 < p_D[NOISY].sum(), shares(p_D)


@pytest.mark.parametrize("seed", range(3))
def test_authors_feeds_the_good_domains_least(seed):
    p_D = mean_mixture("authors", seed)
    assert p_D[GOOD].sum() < min(p_D[IRRELEVANT].sum(), p_D[NOISY].sum()), shares(p_D)


@pytest.mark.parametrize("seed", range(3))
def test_odm_feeds_the_noise_since_its_loss_stays_high(seed):
    p_D = mean_mixture("odm", seed)
    assert p_D[NOISY].sum() > max(p_D[GOOD].sum(), p_D[IRRELEVANT].sum()), shares(p_D)


@pytest.mark.parametrize("seed", range(3))
def test_doremi_on_domains_leaves_the_noise_but_cannot_tell_good_from_irrelevant(seed):
    p_D = mean_mixture("doremi domains", seed)
    assert p_D[NOISY].sum() < 0.25, shares(p_D)
    assert p_D[GOOD].sum() == pytest.approx(p_D[IRRELEVANT].sum()), shares(p_D)
