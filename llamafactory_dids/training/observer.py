"""Watches the training, and measures at an update exactly what the mixer needs.

Training batches provide gradients (`RunningGradients`, `InRunImpact`) and losses (`DomainLosses`). The tasks, and
domains that no batch has shown, are measured by separate passes. All ranks hold the same measurements.
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..artifacts.token_losses import load_token_losses
from ..errors import DidsError
from ..mixers.base import Signals
from ..stages.batching import Collate
from ..stages.entries import TrackedEntries
from ..stages.layers import track_layers
from ..stages.losses import Objective
from ..stages.meter import MAX_TOKENS, GradientMeter, Meter
from ..stages.per_sample import GradientEngine
from .collator import untagged
from .domain_losses import DomainLosses
from .guards import check_aligned, check_modules, no_gradient_came
from .impacts import Impacts, watched
from .in_run import InRunImpact
from .measured_rows import MeasuredRows
from .plan import MixingPlan
from .reference import excess_losses, keep_losses
from .running import RunningGradients

logger = logging.getLogger(__name__)

Floats = NDArray[np.float64]


class Observer:
    """Measures for one training run. `losses` has the tasks' losses (T) of each measurement so far."""

    def __init__(
        self,
        plan: MixingPlan,
        model: nn.Module,
        collate: Collate,
        train_rows: Any,
        objective: Objective,
        batch_size: int,
        **how: Any,
    ) -> None:
        """`how` has `precision` and `device`, as for `stages.meter.Meter`.

        A measurement's batch has at most as many tokens as a training batch of `batch_size` samples.
        """
        self.plan = plan
        self.needs = plan.mixer.needs
        self.objective = objective
        self.losses: list[Floats] = []
        self.meter: GradientMeter | None = None
        self.running: RunningGradients | InRunImpact | None = None
        self._impacts: Impacts | None = None
        self.domain_losses = DomainLosses(len(plan.domain_names))
        check_aligned(plan.tasks)
        self._rows = MeasuredRows(plan, train_rows)
        how["max_tokens"] = _max_tokens(model, batch_size * self._rows.longest())
        self._loss_meter = Meter(model, objective, untagged(collate), **how)
        if self.needs.gradients:
            self._tracked = tracked = track_layers(model, plan.config.dids_gradient_layers, trainable_only=True)
            entries = TrackedEntries(tracked, plan.config.dids_tracked_entries, plan.seed)
            self.meter = GradientMeter(GradientEngine(model, tracked, objective), entries, untagged(collate), **how)
            if plan.config.dids_domain_gradients == "running":
                self.running = watched(plan, tracked, entries, self.meter.device)
            self._impacts = Impacts(plan, self.meter, self.running, self._rows)
        self._reference: dict[str, tuple[Tensor, Tensor]] = {}
        if self.needs.excess_losses:
            assert plan.reference is not None, "a mixer that needs excess losses comes after a run that kept its own"
            self._reference = load_token_losses(plan.reference)

    # --- while training ------------------------------------------------------------------------------------

    def watch(
        self, domains: list[int], counts_N: Tensor, term_weight: Any, num_rows: int, step_weight: int = 1
    ) -> None:
        """Announce a training batch that is about to be computed."""
        if self.running is not None:
            self.running.watch(domains, counts_N, term_weight, num_rows, step_weight)

    def watch_loss(self, loss: Tensor) -> None:
        """Take the loss of this batch, before the backward pass."""
        if self.running is not None:
            self.running.watch_loss(loss)

    def watch_outputs(self, domains: list[int], counts_N: Tensor, outputs: Any, batch: Mapping[str, Any]) -> None:
        """Take the outputs of the host's loss for a training batch; None if the host returned the loss alone.

        Raises DidsError if the mixer needs the samples' losses and the outputs do not hold them.
        """
        losses_N = None if outputs is None else self.objective.training_losses(outputs, batch)
        if losses_N is None and self.needs.domain_losses:
            raise DidsError(
                f"mix_strategy: {self.plan.strategy} needs the logits of each training batch, which this model does "
                "not give (enable_liger_kernel?); allowed: a model that does"
            )
        self.domain_losses.add(domains, losses_N, counts_N)

    def check(self, model: nn.Module) -> None:
        """After a step of `model`, as the trainer wrapped it: raise DidsError if no hook saw the step."""
        if self.running is not None and self.running.none_reached():
            check_modules(model, self._tracked)
            raise no_gradient_came(self.plan.strategy, model)

    # --- at an update --------------------------------------------------------------------------------------

    def begin(self, model: nn.Module) -> None:
        """Before `model` trains, as the trainer wrapped it: measure the longest samples, so that too little memory
        shows now.

        Raises DidsError if a single sample does not fit, or if the model trains other layers than the tracked ones.
        """
        if self.meter is not None:
            check_modules(model, self._tracked)
        if self.running is not None:
            self.running.rest()
        if self.needs.tasks or self.needs.excess_losses:
            (self.meter or self._loss_meter).try_longest(self._rows.examples())

    def aim(self) -> None:
        """Before training: measure the tasks' losses, if they count, and the directions for the first window."""
        self._keep(self._impacts.aim() if self._impacts is not None else None)

    def look(self) -> bool:
        """Measure the tasks' losses and nothing else, if they count. Returns whether they do."""
        if looks := bool(self.needs.tasks and self.plan.tasks):
            self.losses.append(self._task_losses())
            self._loss_meter.report()
        return looks

    def _keep(self, losses_T: Floats | None) -> None:
        """Keep the tasks' losses that came with a measurement. If none came, measure them now, if they count."""
        if losses_T is None:
            self.look()
        else:
            self.losses.append(losses_T)

    def measure(self, num_updates: int, samples_seen: int, domain_losses_D: Floats) -> Signals:
        """The signals that the mixer needs, measured now. `num_updates` counts from 1; `domain_losses_D` are of the
        window that ends here.
        """
        if self.running is not None:
            self.running.rest()  # the hooks must not take a measurement for a training batch
        losses_T, found = self._impacts.measure(num_updates) if self._impacts is not None else (None, Signals())
        self._keep(losses_T)
        signals = replace(
            found,
            task_losses_UT=np.stack(self.losses) if self.losses else None,
            domain_losses_D=domain_losses_D,
            excess_losses_T=self._excess("tasks"),
            excess_losses_D=self._excess("domains"),
            samples_seen=samples_seen,
        )
        for meter in (self.meter, self._loss_meter):
            if meter is not None:
                meter.report()
        return signals

    def _task_losses(self) -> Floats:
        return np.array([self._loss_meter.token_losses(rows).mean() for rows in self.plan.tasks.values()])

    def _excess(self, kind: str) -> Floats | None:
        if self.needs.excess_losses != kind:
            return None
        return excess_losses(self._loss_meter, self._rows.compared(kind), self._reference)

    def finish(self) -> None:
        """After the last step: keep the losses that a proxy run has to leave, and remove the hooks from the model."""
        if self.running is not None:
            self.running.close()
        if self.needs.proxy_run is not None and (kept := self.needs.proxy_run.keeps_losses) is not None:
            keep_losses(self.plan.folder, self._loss_meter, self._rows.compared(kept))

    # --- checkpoints ---------------------------------------------------------------------------------------

    def common(self) -> dict[str, Tensor]:
        """The tensors to save that are the same on all ranks."""
        aimed = {"directions": self.running.directions_TP} if isinstance(self.running, InRunImpact) else {}
        return {"losses": torch.tensor(np.array(self.losses)), **aimed, **self.domain_losses.common()}

    def share(self) -> dict[str, Tensor]:
        """The tensors to save of this rank's window."""
        running = self.running.share() if self.running is not None else {}
        return running | self.domain_losses.share()

    def restore(self, common: dict[str, Tensor], shares: list[dict[str, Tensor]]) -> None:
        """Go on from `common`, and from the shares that this rank takes over."""
        self.losses = list(common["losses"].numpy())
        self.domain_losses.restore(common, shares)
        if isinstance(self.running, InRunImpact):
            self.running.aim(common["directions"])
        if self.running is not None:
            self.running.restore(shares)


def _max_tokens(model: nn.Module, of_training: int) -> int:
    """Tokens of a measurement's batch that fits into memory if a training batch of `of_training` tokens does.

    A measurement keeps what the tracked blocks compute. A training with checkpointing keeps less for each token.
    """
    checkpointed = getattr(model, "is_gradient_checkpointing", False)
    return min(MAX_TOKENS, of_training // 2 if checkpointed else of_training)
