"""A run at a checkpoint, and what estimates measure there, each thing once.

All of it sees training rows and the observed rows of the tasks, never the held-out ones. The gradients, the tasks'
Fisher matrices and the running sums are the product's own, on the entries that it tracks.

Shapes: `P` entries, `D` domains, `T` tasks.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llamafactory_dids.config import MixingConfig
from llamafactory_dids.core.fisher import directions
from llamafactory_dids.core.moments import Estimates
from llamafactory_dids.stages.entries import TrackedEntries
from llamafactory_dids.stages.layers import TrackedLayers, find_layers
from llamafactory_dids.stages.meter import GradientMeter, TaskMeasurement
from llamafactory_dids.stages.per_sample import GradientEngine
from llamafactory_dids.training.in_run import InRunImpact
from llamafactory_dids.training.running import RunningGradients
from llamafactory_dids.training.watching import WatchedGradients
from scripts.validity.trials import OBJECTIVE, Draws, Learner, State
from scripts.validity.worlds import Rows

Floats = NDArray[np.float64]
DEFAULTS = MixingConfig()
BLOCKS = {"last tenth": DEFAULTS.dids_gradient_layers, "last half": 0.5, "all": 1.0}  # the first is today's
FRESH = (4, 16, 64)  # samples of a domain, each the first ones of the next


def once(measure: Callable[..., Any]) -> Callable[..., Any]:
    """What a method of a scene gives is kept, and the training stands at the checkpoint when it begins."""

    @functools.wraps(measure)
    def kept(self: "Scene", *key: Any) -> Any:
        name = (measure.__name__, *key)
        if name not in self._kept:
            self.learner.restore(self.here)
            self._kept[name] = measure(self, *key)
        return self._kept[name]

    return kept


class Scene:
    """The training stands at `here`; it came from `before` by `window`, the last steps before the checkpoint."""

    def __init__(self, learner: Learner, before: State, window: Draws, here: State, seed: int) -> None:
        self.learner = learner
        self.world = learner.world
        self.before, self.window, self.here = before, window, here
        self.seed = seed
        self._kept: dict[Any, Any] = {}

    @once
    def layers(self, blocks: str) -> TrackedLayers:
        """The tracked layers of a share of the blocks, by its name in BLOCKS."""
        return find_layers(self.learner.model, BLOCKS[blocks], trainable_only=True)

    @once
    def meter(self, blocks: str) -> GradientMeter:
        """The product's meter of gradients, on as many entries as it tracks."""
        layers, learner = self.layers(blocks), self.learner
        entries = TrackedEntries(layers, DEFAULTS.dids_tracked_entries, self.seed)
        engine = GradientEngine(learner.model, layers, OBJECTIVE)
        return GradientMeter(engine, entries, learner.collate, device=learner.device)

    @once
    def tasks(self, blocks: str) -> TaskMeasurement:
        """The tasks' losses, gradients and Fisher diagonals, of their observed samples."""
        return self.meter(blocks).tasks(list(self.world.observed_T.values()))

    @once
    def running(self, blocks: str) -> Tensor:
        """The window's mean gradient of each domain (D, P); a domain that it did not draw is measured."""
        learner = self.learner
        sums = RunningGradients(len(self.world.rows_D), self.layers(blocks), self.meter(blocks).entries, learner.device)
        self._train_window(sums)
        gradients_DP, known_D = sums.close_window()
        for domain in np.flatnonzero(~known_D):
            rows = self.rows(int(domain), DEFAULTS.dids_fresh_samples)
            sums.set_estimate(int(domain), self.meter(blocks).domain(rows))
        return gradients_DP

    @once
    def in_run(self, blocks: str, kind: str) -> Estimates:
        """The products of the window's samples with the tasks' directions at its start."""
        learner, meter = self.learner, self.meter(blocks)
        learner.restore(self.before)
        tasks = meter.tasks(list(self.world.observed_T.values()))
        how = (len(self.world.rows_D), len(self.world.observed_T), self.layers(blocks), meter.entries, learner.device)
        sums = InRunImpact(*how)
        sums.aim(directions(tasks.gradients_TP, tasks.fisher_TP, kind))
        self._train_window(sums)
        return sums.close_window()

    def _train_window(self, sums: WatchedGradients) -> None:
        """The window trained once more, watched by the product's hooks."""

        def watch(domains_B: list[int], counts_B: Tensor) -> Callable[[Tensor], None]:
            sums.watch(domains_B, counts_B, 1.0 / counts_B.sum().clamp(min=1))
            return sums.watch_loss

        self.learner.restore(self.before)
        self.learner.train(self.window, watch)
        sums.close()

    def rows(self, domain: int, count: int) -> Rows:
        """Some of a domain's training rows, the first of them the same whatever the count."""
        rows = list(self.world.rows_D.values())[domain]
        chosen = np.random.default_rng((self.seed, self.here.step, domain)).permutation(len(rows))[:count]
        return [rows[i] for i in chosen]

    @once
    def fresh(self, blocks: str, samples: int) -> Tensor:
        """The mean gradient of some samples of each domain, at the checkpoint's weights (D, P)."""
        meter = self.meter(blocks)
        return torch.stack([meter.domain(self.rows(domain, samples)) for domain in range(len(self.world.rows_D))])

    @once
    def probe(self, num_steps: int) -> Floats:
        """By how much each task's observed loss falls in real steps on each domain alone (D, T)."""
        how, before_T, fallen = self.world.training, self.observed(), []
        for domain in range(len(self.world.rows_D)):
            self.learner.restore(self.here)
            draws = Draws.by(self.world.mixture_D, num_steps, how.batch_size, self.seed, self.here.step, 10**6)
            self.learner.train(draws.with_share(domain, math.inf))
            fallen.append(before_T - self.learner.losses(self.world.observed_T))
        return np.stack(fallen)

    @once
    def observed(self) -> Floats:
        """The tasks' observed losses at the checkpoint (T)."""
        return self.learner.losses(self.world.observed_T)
