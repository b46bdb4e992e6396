"""The impact of each domain on each task, as the mixer and the run's keys ask for it.

In-run impact comes with its errors, from the products of training samples with the tasks' directions. The other
normalisations need the domains' mean gradients, of the window or of fresh samples.
"""

import logging

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..core.fisher import directions, gram, impact
from ..core.moments import Estimates, Moments
from ..mixers.base import Signals
from ..stages.bar import progress
from ..stages.entries import TrackedEntries
from ..stages.layers import TrackedLayers
from ..stages.meter import GradientMeter, TaskMeasurement
from .guards import check_gradients, check_impact
from .in_run import InRunImpact
from .measured_rows import MeasuredRows
from .plan import MixingPlan
from .running import RunningGradients

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]


def watched(
    plan: MixingPlan, tracked: TrackedLayers, entries: TrackedEntries, device: torch.device
) -> RunningGradients | InRunImpact:
    """The object that takes the gradients of a run from its training batches."""
    asked = plan.mixer.needs.impact
    if asked is not None and asked.errors:
        return InRunImpact(len(plan.domain_names), len(plan.tasks), tracked, entries, device)
    return RunningGradients(len(plan.domain_names), tracked, entries, device)


class Impacts:
    """Measures the impacts of one run. `running` is None if fresh samples measure the domains."""

    def __init__(
        self,
        plan: MixingPlan,
        meter: GradientMeter,
        running: RunningGradients | InRunImpact | None,
        rows: MeasuredRows,
    ) -> None:
        self.plan, self.needs, self.meter, self.running = plan, plan.mixer.needs, meter, running
        self._rows = rows

    def aim(self) -> Floats | None:
        """Before training, measure the tasks if the first window needs their directions. Returns the losses (T) or
        None.
        """
        if not isinstance(self.running, InRunImpact):
            return None
        tasks = self._measure_tasks()
        self.running.aim(self._directions(tasks))
        return tasks.losses_T

    def measure(self, num_updates: int) -> tuple[Floats | None, Signals]:
        """The tasks' losses (T), if they were measured, and the signals that need gradients, at update `num_updates`
        (from 1): of the window that ends, or of samples drawn for it.
        """
        if self.needs.impact is None or not self.needs.impact.errors:
            return self._by_mean_gradients(num_updates)
        if isinstance(self.running, InRunImpact):
            return self._in_run(self.running)
        return self._by_samples(num_updates)

    def _in_run(self, running: InRunImpact) -> tuple[Floats, Signals]:
        """The impact along the directions of the window's start. New directions are set for the next window."""
        aimed_T = running.directions_TP.any(dim=1).cpu().numpy()
        found = running.close_window()
        check_impact(found.mean_DT, aimed_T, list(self.plan.tasks))
        tasks = self._measure_tasks()
        self._usable(tasks)  # logs the unusable tasks
        running.aim(self._directions(tasks))
        return tasks.losses_T, self._with_errors(found)

    def _by_samples(self, num_updates: int) -> tuple[Floats, Signals]:
        tasks = self._measure_tasks()
        directions_TP = self._directions(tasks)
        moments = Moments(len(self.plan.domain_names), len(directions_TP), self.meter.device)
        for domain in range(len(self.plan.domain_names)):
            rows = self._rows.of_domain(domain, draw=num_updates)
            counts_N, scores_NT = self.meter.scores(rows, directions_TP)
            moments.add(torch.full_like(counts_N, domain, dtype=torch.int64), counts_N, scores_NT)
        found = moments.estimates()
        check_impact(found.mean_DT, self._usable(tasks), list(self.plan.tasks))
        return tasks.losses_T, self._with_errors(found)

    def _with_errors(self, found: Estimates) -> Signals:
        """If p are shares of tokens, a sample is as many units of p as it has tokens, and a unit weighs less."""
        weight_D = found.weight_D if self.plan.tokens_D is None else found.weight_D / self.plan.tokens_D
        return Signals(impact_DT=found.mean_DT, impact_covariance_DTT=found.covariance_DTT, sample_weights_D=weight_D)

    def _by_mean_gradients(self, num_updates: int) -> tuple[Floats | None, Signals]:
        asked, gram_DD = self.needs.impact, None
        tasks = self._measure_tasks() if asked is not None else None
        domains_DP = self._domain_gradients(num_updates)
        if self.needs.domain_gram:
            check_gradients(domains_DP)
            gram_DD = gram(domains_DP)
        if asked is None or tasks is None:
            return None, Signals(domain_gram_DD=gram_DD)
        impact_DT = impact(domains_DP, tasks.gradients_TP, tasks.fisher_TP, asked.kind, asked.normalize)
        usable_T = self._usable(tasks)
        # `sum` keeps only positive impacts, so a task that all domains harm has none
        if asked.normalize != "sum" or not bool(domains_DP.any()):
            check_impact(impact_DT, usable_T, list(self.plan.tasks))
        return tasks.losses_T, Signals(impact_DT=impact_DT, domain_gram_DD=gram_DD)

    def _measure_tasks(self) -> TaskMeasurement:
        return self.meter.tasks(list(self.plan.tasks.values()))

    def _directions(self, tasks: TaskMeasurement) -> Tensor:
        assert self.needs.impact is not None
        return directions(tasks.gradients_TP, tasks.fisher_TP, self.needs.impact.kind)

    def _domain_gradients(self, num_updates: int) -> Tensor:
        """Mean gradient of each domain (D, P): of the window, else of an earlier window, else of fresh samples."""
        if self.running is None:
            size = len(self.plan.domain_names), self.meter.entries.size
            fresh_DP = torch.empty(size, device=self.meter.device)  # a stack would need the memory twice
            for domain in range(len(fresh_DP)):
                fresh_DP[domain] = self._fresh_gradient(domain, num_updates)
            return fresh_DP
        assert isinstance(self.running, RunningGradients)
        gradients_DP, known_D = self.running.close_window()
        if len(unseen := np.flatnonzero(~known_D)):  # many at the first update, which they make the slowest
            with progress("domains that no batch has had", len(unseen), of="domain") as advance:
                for domain in map(int, unseen):
                    self.running.set_estimate(domain, self._fresh_gradient(domain, num_updates))
                    advance(1)
        return gradients_DP

    def _fresh_gradient(self, domain: int, num_updates: int) -> Tensor:
        return self.meter.domain(self._rows.of_domain(domain, draw=num_updates))

    def _usable(self, tasks: TaskMeasurement) -> NDArray[np.bool_]:
        """Whether each task could be measured (T). Each other task gets a warning in the log."""
        norms_T = tasks.gradients_TP.norm(dim=1).cpu().numpy()
        usable_T: NDArray[np.bool_] = np.isfinite(tasks.losses_T) & np.isfinite(norms_T) & (norms_T > 0)
        for name, loss, norm, usable in zip(self.plan.tasks, tasks.losses_T, norms_T, usable_T, strict=True):
            if not usable:
                logger.warning("task %s is left out of this update: loss %s, gradient norm %s", name, loss, norm)
        return usable_T
