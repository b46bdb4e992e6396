"""The gradients of training samples, seen by hooks while the model trains, without another backward pass.

Hooks on the tracked layers see each micro-batch's activations and output gradients. What they yield is the
gradient of the loss that is being trained, so the scale that gradient accumulation, mixed precision or the
number of ranks put on it is divided out again: a sample weighs what it weighs in training, by its terms.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..stages.entries import TrackedEntries
from ..stages.layers import TrackedLayers
from ..stages.per_sample import by_sample


@dataclass
class MicroBatch:
    """N samples: the domain of each, its weight among those of the window, and what is kept of them for now."""

    domains_N: Tensor
    weights_N: Tensor
    num_rows: int
    step_weight: int
    scale: Tensor | None = None  # of the backward pass below the loss, known once it starts
    kept: Any = None  # by whoever looks on, from the first gradient that came


class WatchedGradients(ABC):
    """Hands each sample's gradient on each tracked layer to `take`, which who looks on defines."""

    def __init__(self, tracked: TrackedLayers, entries: TrackedEntries, device: torch.device | str = "cpu") -> None:
        self.entries = entries
        self.device = torch.device(device)
        self._num_watched = self._num_reached = 0  # micro-batches since `none_reached` was asked
        self._micro_batch: MicroBatch | None = None
        self._handles = [layer.register_forward_hook(self._hook(i)) for i, layer in enumerate(tracked.layers)]

    @abstractmethod
    def take(self, layer: int, gradients_NB: Tensor, micro_batch: MicroBatch) -> None:
        """Each sample's gradient on the entries of a layer, times its weight; zero where it is not finite."""

    def settle(self) -> None:  # noqa: B027  who keeps nothing of a batch has nothing to do
        """The gradients of the batch that was watched last have all come."""

    def watch(
        self,
        domains: list[int],
        counts_N: Tensor,
        term_weight: Tensor | float,
        num_rows: int | None = None,
        step_weight: int = 1,
    ) -> None:
        """The next forward pass is a training batch of samples of these domains, in `num_rows` rows (N unless told).

        Each of a sample's terms (`counts_N`) weighs `term_weight` in the loss, all those of a step, over the ranks,
        `step_weight`. It is divided out, so that a window can go on with other ranks than it began with.
        """
        self.settle()
        domains_N = torch.tensor(domains, device=self.device)
        weights_N = (counts_N * term_weight / step_weight).to(self.device, torch.float32)
        self._micro_batch = MicroBatch(domains_N, weights_N, num_rows or len(domains), step_weight)
        self._num_watched += 1

    def watch_loss(self, loss: Tensor) -> None:
        """Learn from the loss's own gradient how the backward pass is scaled."""
        micro_batch = self._micro_batch
        if micro_batch is not None and loss.requires_grad:
            weight = micro_batch.step_weight
            loss.register_hook(lambda gradient: setattr(micro_batch, "scale", gradient.float() * weight))

    def rest(self) -> None:
        """What runs from now on is not training."""
        self.settle()
        self._micro_batch = None

    def none_reached(self) -> bool:
        """Whether batches were watched since this was asked last, and the backward pass of none came by the hooks."""
        unseen = self._num_watched > 0 and self._num_reached == 0
        self._num_watched = self._num_reached = 0
        return unseen

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()

    def _hook(self, layer: int) -> Any:
        def hook(_module: nn.Module, args: tuple[Any, ...], output: Tensor) -> None:
            micro_batch = self._micro_batch
            if micro_batch is None or not output.requires_grad:
                return
            inputs = self.entries.inputs(layer, args[0].detach())
            output.register_hook(lambda gradient: self._add(layer, inputs, gradient, micro_batch))

        return hook

    @torch.no_grad()
    def _add(self, layer: int, inputs: Tensor, gradient: Tensor, micro_batch: MicroBatch) -> None:
        x_NSC, y_NSO = (by_sample(v, micro_batch.num_rows, len(micro_batch.domains_N)) for v in (inputs, gradient))
        gradients_NB = self.entries.gradients(layer, x_NSC, y_NSO)
        if micro_batch.scale is not None:
            gradients_NB = gradients_NB / micro_batch.scale
        # an overflow of a scaled fp16 loss, which the optimizer skips, must not spoil the window; it shows in the sum
        finite_N = gradients_NB.sum(dim=1).isfinite()
        if micro_batch.kept is None:
            self._num_reached += 1
            micro_batch.weights_N = micro_batch.weights_N * finite_N
        self.take(layer, torch.where(finite_N[:, None], gradients_NB, 0), micro_batch)
