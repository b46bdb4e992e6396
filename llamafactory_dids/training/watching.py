"""The gradients of training samples, seen by hooks while the model trains, without another backward pass.

Hooks on the tracked layers see each micro-batch's activations and output gradients. These belong to the loss being
trained, scaled by gradient accumulation, mixed precision and the number of ranks. The scale is divided out again, so a
sample has its weight in training, by its terms.
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
    """N samples: their domains, their weights in the window, and values kept until the batch is complete."""

    domains_N: Tensor
    weights_N: Tensor
    num_rows: int
    step_weight: int
    scale: Tensor | None = None  # scale of the backward pass, known once it starts
    kept: Any = None  # set by `take`, from the first gradient on


class WatchedGradients(ABC):
    """Passes each sample's gradient on each tracked layer to `take`, which a subclass defines."""

    def __init__(self, tracked: TrackedLayers, entries: TrackedEntries, device: torch.device | str = "cpu") -> None:
        self.entries = entries
        self.device = torch.device(device)
        self._num_watched = self._num_reached = 0  # micro-batches since the last call of `none_reached`
        self._micro_batch: MicroBatch | None = None
        self._handles = [layer.register_forward_hook(self._hook(i)) for i, layer in enumerate(tracked.layers)]

    @abstractmethod
    def take(self, layer: int, gradients_NB: Tensor, micro_batch: MicroBatch) -> None:
        """Take each sample's gradient on the entries of a layer, times the sample's weight; zero if not finite."""

    def settle(self) -> None:  # noqa: B027  empty for a subclass that keeps nothing of a batch
        """Called when all gradients of the last watched batch have come."""

    def watch(
        self,
        domains: list[int],
        counts_N: Tensor,
        term_weight: Tensor | float,
        num_rows: int | None = None,
        step_weight: int = 1,
    ) -> None:
        """Expect a training batch in the next forward pass: samples of these domains, in `num_rows` rows (default N).

        Each of a sample's `counts_N` terms weighs `term_weight` in the loss, and all terms of a step, over the ranks,
        weigh `step_weight`. The step's weight is divided out, so that a window can go on with another number of ranks.
        """
        self.settle()
        domains_N = torch.tensor(domains, device=self.device)
        weights_N = (counts_N * term_weight / step_weight).to(self.device, torch.float32)
        self._micro_batch = MicroBatch(domains_N, weights_N, num_rows or len(domains), step_weight)
        self._num_watched += 1

    def watch_loss(self, loss: Tensor) -> None:
        """Read the scale of the backward pass from the loss's own gradient."""
        micro_batch = self._micro_batch
        if micro_batch is not None and loss.requires_grad:
            weight = micro_batch.step_weight
            loss.register_hook(lambda gradient: setattr(micro_batch, "scale", gradient.float() * weight))

    def rest(self) -> None:
        """Stop watching: passes from now on are not training."""
        self.settle()
        self._micro_batch = None

    def none_reached(self) -> bool:
        """Whether batches were watched since the last call, and no backward pass reached the hooks."""
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
        # The optimizer skips an overflow of a scaled fp16 loss, and so must the window. The overflow shows in the sum.
        finite_N = gradients_NB.sum(dim=1).isfinite()
        if micro_batch.kept is None:
            self._num_reached += 1
            micro_batch.weights_N = micro_batch.weights_N * finite_N
        self.take(layer, torch.where(finite_N[:, None], gradients_NB, 0), micro_batch)
