"""A stream of synthetic gradients with domains known to be good, irrelevant and noisy: who gets fed?

Through `core.fisher.impact` as each preset needs it. A good domain is its task's gradient and noise, an
irrelevant one is orthogonal to all tasks, a noisy one is long and points anywhere. Losses fall alike in any
mixture.
"""

import numpy as np
import pytest
import torch

from llamafactory_dids.core.fisher import diagonal_fisher, impact
from llamafactory_dids.mixers import Signals, create

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
        fisher_TP = torch.stack([diagonal_fisher(samples_NP) for samples_NP in samples_TNP])
        return torch.tensor(domains_DP), torch.tensor(samples_TNP.mean(axis=1)), fisher_TP


def mean_mixture(preset: str, seed: int) -> np.ndarray:
    """The mean of the probabilities over the run: what the model was fed."""
    mixer = create("dids", 9, T, preset=preset)
    stream, state, trace = Stream(seed), mixer.init(), []
    noise_UT = np.random.default_rng(seed).normal(0, 0.01, (NUM_UPDATES + 1, T))
    losses_UT = 1 + 2 * np.exp(-np.outer(np.arange(NUM_UPDATES + 1), [0.05, 0.1, 0.2])) + noise_UT
    for u in range(NUM_UPDATES):
        impact_DT = impact(*stream.measure(), *mixer.needs.impact)
        p_D, state = mixer.update(state, Signals(losses_UT[: u + 2], impact_DT))
        trace.append(p_D)
    return np.mean(trace, axis=0)


def shares(p_D: np.ndarray) -> str:
    return f"good {p_D[GOOD].sum():.2f}, irrelevant {p_D[IRRELEVANT].sum():.2f}, noisy {p_D[NOISY].sum():.2f}"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("preset", ["default", "paper"])
def test_default_and_paper_feed_the_good_domains(preset, seed):
    p_D = mean_mixture(preset, seed)
    assert p_D[GOOD].sum() > 0.5, shares(p_D)
    assert p_D[GOOD].sum() > 2 * max(p_D[IRRELEVANT].sum(), p_D[NOISY].sum()), shares(p_D)


@pytest.mark.parametrize("seed", range(3))
def test_literal_feeds_the_noise(seed):
    p_D = mean_mixture("literal", seed)
    assert p_D[GOOD].sum() < 0.2 < 0.5 < p_D[NOISY].sum(), shares(p_D)


@pytest.mark.parametrize("seed", range(3))
def test_authors_feeds_the_good_domains_least(seed):
    p_D = mean_mixture("authors", seed)
    assert p_D[GOOD].sum() < min(p_D[IRRELEVANT].sum(), p_D[NOISY].sum()), shares(p_D)
