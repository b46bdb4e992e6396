"""A run at a checkpoint, and what estimates measure there, each thing once.

All of it sees training rows and the observed rows of the tasks, never the held-out ones. The gradients, the tasks'
Fisher matrices and the running sums are the product's own, on the entries that it tracks.

Shapes: `N` samples, `P` entries, `K` projected entries, `D` domains, `T` tasks.
"""

import functools
import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llamafactory_dids.config import MixingConfig
from llamafactory_dids.core.fisher import directions
from llamafactory_dids.core.moments import Estimates
from llamafactory_dids.core.projection import Projection
from llamafactory_dids.stages.entries import TrackedEntries
from llamafactory_dids.stages.layers import TrackedLayers, find_layers, linear_shape
from llamafactory_dids.stages.meter import GradientMeter, TaskMeasurement
from llamafactory_dids.stages.per_sample import GradientEngine
from llamafactory_dids.training.in_run import InRunImpact
from llamafactory_dids.training.running import RunningGradients
from scripts.validity.moments import Mean, Moments
from scripts.validity.trials import OBJECTIVE, Draws, Learner, State, Watched
from scripts.validity.worlds import Rows

Floats = NDArray[np.float64]
DEFAULTS = MixingConfig()
BLOCKS = {"last tenth": DEFAULTS.dids_gradient_layers, "last half": 0.5, "all": 1.0}  # the first is today's
FRESH = (4, 16, 64)  # samples of a domain, each the first ones of the next
PROJECTED = 256
_AT_ONCE = 16  # samples whose whole gradients are there


class Running(NamedTuple):
    """A window's mean gradient of each domain (D, P), and those of its even and its odd steps."""

    all_DP: Tensor
    even_DP: Tensor
    odd_DP: Tensor


class Fresh(NamedTuple):
    """Of each domain the mean gradient of its first n samples, by n; and each sample's gradient, projected (N, K)."""

    means: dict[int, Mean]
    projected_D: list[Tensor]


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
    def optimizer_metric(self, blocks: str) -> Tensor:
        """v^(-1/2) of AdamW on the tracked entries (P): what its next step multiplies a gradient by."""
        entries, beta = self.meter(blocks).entries, self.learner.optimizer.param_groups[0]["betas"][1]
        parts = []
        for i, layer in enumerate(self.layers(blocks).layers):
            second = self.learner.optimizer.state[layer.weight]["exp_avg_sq"]
            second_OI = second if second.shape == linear_shape(layer) else second.T  # GPT-2's has inputs first
            rows, columns = (x[i].to(second.device) for x in (entries.rows, entries.columns))
            parts.append(second_OI[rows][:, columns].flatten())
        return (torch.cat(parts) / (1 - beta**self.here.step)).sqrt().add(1e-8).reciprocal()

    @once
    def running(self, blocks: str) -> Running:
        """The window trained once more, watched by the product's hooks; a domain that it did not draw is measured."""
        sums = self._watched(blocks)
        found = []
        for running in sums:
            gradients_DP, known_D = running.close_window()
            for domain in np.flatnonzero(~known_D):
                rows = self.rows(int(domain), max(FRESH))[: DEFAULTS.dids_fresh_samples]
                running.set_estimate(int(domain), self.meter(blocks).domain(rows))
            found.append(gradients_DP)
            running.close()
        return Running(*found)

    @once
    def in_run(self, blocks: str, kind: str) -> Estimates:
        """The window trained once more, watched by the product's hooks along the tasks' directions at its start."""
        learner, meter = self.learner, self.meter(blocks)
        learner.restore(self.before)
        tasks = meter.tasks(list(self.world.observed_T.values()))
        how = (len(self.world.rows_D), len(self.world.observed_T), self.layers(blocks), meter.entries, learner.device)
        sums = InRunImpact(*how)
        sums.aim(directions(tasks.gradients_TP, tasks.fisher_TP, kind))

        def watch(batch: Watched) -> Callable[[Tensor], None]:
            sums.watch(batch.domains_B, batch.counts_B, 1.0 / batch.counts_B.sum().clamp(min=1))
            return sums.watch_loss

        learner.train(self.window, watch)
        sums.close()
        return sums.close_window()

    def _watched(self, blocks: str) -> list[RunningGradients]:
        """The sums of the whole window, and of its even and odd steps."""
        learner, meter = self.learner, self.meter(blocks)
        how = (len(self.world.rows_D), self.layers(blocks), meter.entries, learner.device)
        every, *halves = (RunningGradients(*how) for _ in range(3))

        def watch(batch: Watched) -> Callable[[Tensor], None]:
            mine = [every, halves[batch.step % 2]]
            halves[1 - batch.step % 2].rest()
            for sums in mine:
                sums.watch(batch.domains_B, batch.counts_B, 1.0 / batch.counts_B.sum().clamp(min=1))

            def sees(loss: Tensor) -> None:
                for sums in mine:
                    sums.watch_loss(loss)

            return sees

        learner.restore(self.before)
        learner.train(self.window, watch)
        for sums in (every, *halves):
            sums.rest()
        return [every, *halves]

    def rows(self, domain: int, count: int) -> Rows:
        """Some of a domain's training rows, the first of them the same whatever the count."""
        rows = list(self.world.rows_D.values())[domain]
        chosen = np.random.default_rng((self.seed, self.here.step, domain)).permutation(len(rows))[:count]
        return [rows[i] for i in chosen]

    @once
    def fresh(self, blocks: str) -> Fresh:
        """Gradients of samples of each domain, at the checkpoint's weights, weighted by terms as training is."""
        projection = self.projection(blocks)
        moments: dict[int, list[Mean]] = {n: [] for n in FRESH}
        projected_D = []
        for domain in range(len(self.world.rows_D)):
            rows, sums, projected = self.rows(domain, max(FRESH)), Moments(), []
            for first, n in zip((0, *FRESH), FRESH, strict=False):
                for gradients_GP, counts_G in self._sample_gradients(blocks, rows[first:n]):
                    sums.add(gradients_GP, counts_G)
                    projected.append(projection.project(gradients_GP))
                moments[n].append(sums.mean())
            projected_D.append(torch.cat(projected))
        stacked = {n: Mean(*map(torch.stack, zip(*found, strict=True))) for n, found in moments.items()}
        return Fresh(stacked, projected_D)

    @once
    def projection(self, blocks: str) -> Projection:
        """From the tracked entries to K."""
        return Projection(self.meter(blocks).entries.size, PROJECTED, self.seed)

    def _sample_gradients(self, blocks: str, rows: Rows) -> Iterator[tuple[Tensor, Tensor]]:
        """Each sample's gradient on the tracked entries (G, P), and its terms (G), some samples at a time."""
        meter = self.meter(blocks)
        for start in range(0, len(rows), _AT_ONCE):
            found = meter.engine.run(self.learner.batch(rows[start : start + _AT_ONCE]))
            parts = [meter.entries.gradients(i, meter.entries.inputs(i, x), y) for i, (x, y) in enumerate(found.pairs)]
            yield torch.cat(parts, dim=1) / found.scale_N[:, None], found.counts_N

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
    def large_step(self, num_steps: int) -> Floats:
        """The same of one step along each domain's gradient, by AdamW's v, as long as so many steps."""
        learner, before_T, fallen = self.learner, self.observed(), []
        beta = learner.optimizer.param_groups[0]["betas"][1]
        for domain in range(len(self.world.rows_D)):
            learner.restore(self.here)
            learner.model.eval()
            learner.loss(learner.batch(self.rows(domain, max(FRESH)))).backward()
            with torch.no_grad():
                for weight in learner.model.parameters():
                    if weight.grad is not None:
                        second = learner.optimizer.state[weight]["exp_avg_sq"] / (1 - beta**self.here.step)
                        weight -= num_steps * learner.rate() * weight.grad / (second.sqrt() + 1e-8)
            fallen.append(before_T - learner.losses(self.world.observed_T))
        return np.stack(fallen)

    @once
    def observed(self) -> Floats:
        """The tasks' observed losses at the checkpoint (T)."""
        return self.learner.losses(self.world.observed_T)
