"""The running gradient of each domain, from the training batches, without another backward pass.

Hooks on the tracked layers see each micro-batch's activations and output gradients. What they yield is the
gradient of the loss that is being trained, so the scale that gradient accumulation, mixed precision or the
number of ranks put on it is divided out again: the mean over a window is weighted by terms, as training is.

A domain without a labelled sample in the window keeps its last estimate: that enters the sums of the next window with a
weight that is too small to show beside any sample, and is all there is where no sample came.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ..stages import ranks
from ..stages.entries import TrackedEntries
from ..stages.layers import TrackedLayers
from ..stages.per_sample import by_sample

LAST_ESTIMATE = 2.0**-40  # its weight; a power of two, so that an estimate on its own comes back to the last digit


@dataclass
class _MicroBatch:
    domains_N: Tensor
    weights_N: Tensor  # of the samples among those of the window
    num_rows: int
    step_weight: int
    scale: Tensor | None = None  # of the backward pass below the loss, known once it starts
    weighed: bool = False  # whether the weights are in the sums, as they are once a gradient is


class RunningGradients:
    """Sums of D domains' gradients over the P tracked entries; fp32, on the device that the training computes on.

    Between two windows `sums_DP` holds the estimates, and `weights_D` 1 for each domain that has one, else 0.
    """

    def __init__(
        self,
        num_domains: int,
        tracked: TrackedLayers,
        entries: TrackedEntries,
        device: torch.device | str = "cpu",
    ) -> None:
        self.entries = entries
        self.sums_DP = torch.zeros(num_domains, entries.size, device=device)
        self.weights_D = torch.zeros(num_domains, device=device)
        self._window_is_open = False
        self._num_watched = self._num_reached = 0  # micro-batches since `none_reached` was asked
        self._micro_batch: _MicroBatch | None = None
        self._handles = [layer.register_forward_hook(self._hook(i)) for i, layer in enumerate(tracked.layers)]

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
        self._open_window()
        domains_N = torch.tensor(domains, device=self.sums_DP.device)
        weights_N = (counts_N * term_weight / step_weight).to(self.weights_D)
        self._micro_batch = _MicroBatch(domains_N, weights_N, num_rows or len(domains), step_weight)
        self._num_watched += 1

    def watch_loss(self, loss: Tensor) -> None:
        """Learn from the loss's own gradient how the backward pass is scaled."""
        micro_batch = self._micro_batch
        if micro_batch is not None and loss.requires_grad:
            weight = micro_batch.step_weight
            loss.register_hook(lambda gradient: setattr(micro_batch, "scale", gradient.float() * weight))

    def rest(self) -> None:
        """What runs from now on is not training."""
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
    def _add(self, layer: int, inputs: Tensor, gradient: Tensor, micro_batch: _MicroBatch) -> None:
        x_NSC, y_NSO = (by_sample(v, micro_batch.num_rows, len(micro_batch.domains_N)) for v in (inputs, gradient))
        gradients_NB = self.entries.gradients(layer, x_NSC, y_NSO)
        if micro_batch.scale is not None:
            gradients_NB = gradients_NB / micro_batch.scale
        # an overflow of a scaled fp16 loss, which the optimizer skips, must not spoil the window; it shows in the sum
        finite_N = gradients_NB.sum(dim=1).isfinite()
        gradients_NB = torch.where(finite_N[:, None], gradients_NB, 0)
        self.sums_DP[:, self.entries.slices[layer]].index_add_(0, micro_batch.domains_N, gradients_NB)
        if not micro_batch.weighed:
            self.weights_D.index_add_(0, micro_batch.domains_N, micro_batch.weights_N * finite_N)
            micro_batch.weighed = True
            self._num_reached += 1

    def _open_window(self) -> None:
        """From estimates to sums: the first rank carries the last estimates into them."""
        if not self._window_is_open:
            weight = LAST_ESTIMATE if ranks.world()[0] == 0 else 0.0
            self.sums_DP *= weight
            self.weights_D *= weight
            self._window_is_open = True

    def close_window(self) -> tuple[Tensor, NDArray[np.bool_]]:
        """Mean gradients (D, P) over all ranks and which domains have one (D); a new window begins.

        An estimate that is not finite is dropped. The tensor is the accumulator itself: read it before the next
        training batch.
        """
        self.rest()
        self._open_window()
        ranks.sum_over_ranks(self.sums_DP, self.weights_D)
        self.sums_DP /= self.weights_D.clamp(min=1e-30)[:, None]
        known_D = (self.weights_D > 0) & self.sums_DP.sum(dim=1).isfinite()
        self.sums_DP[~known_D] = 0
        self.weights_D = known_D.to(self.weights_D)
        self._window_is_open = False
        return self.sums_DP, known_D.cpu().numpy()

    def set_estimate(self, domain: int, gradient_P: Tensor) -> None:
        """Replace a domain's estimate, between two windows; by none where it is not finite."""
        assert not self._window_is_open, "an estimate is set between two windows"
        known = bool(gradient_P.isfinite().all())
        self.sums_DP[domain] = gradient_P if known else 0
        self.weights_D[domain] = float(known)

    def share(self) -> dict[str, Tensor]:
        """What this rank has added up in the window so far, of the domains of which it has anything.

        The last estimates are in the first rank's.
        """
        self._open_window()
        rows = torch.nonzero(self.weights_D)[:, 0]
        return {
            "running_rows": rows.cpu(),
            "running_sums": self.sums_DP[rows],
            "running_weights": self.weights_D[rows],
        }

    def restore(self, shares: list[dict[str, Tensor]]) -> None:
        """Go on from the shares that this rank takes over."""
        self.sums_DP.zero_()
        self.weights_D.zero_()
        self._window_is_open = True
        for share in shares:
            rows = share["running_rows"].to(self.sums_DP.device)
            self.sums_DP.index_add_(0, rows, share["running_sums"].to(self.sums_DP))
            self.weights_D.index_add_(0, rows, share["running_weights"].to(self.weights_D))
