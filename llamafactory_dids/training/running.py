"""The running gradient of each domain, from the training batches, without another backward pass.

Hooks on the tracked layers see each micro-batch's activations and output gradients. What they yield is the
gradient of the loss that is being trained, so the scale that gradient accumulation, mixed precision or the
number of ranks put on it is divided out again: the mean over a window is weighted by terms, as training is.
A domain without a sample in the window keeps its last estimate.
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


@dataclass
class _MicroBatch:
    domains_N: Tensor
    num_rows: int
    step_weight: int
    scale: Tensor | None = None  # of the backward pass below the loss, known once it starts


class RunningGradients:
    """Sums of D domains' gradients over the P tracked entries; fp32, on the device that the training computes on."""

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
        self.touched_D = np.zeros(num_domains, dtype=np.bool_)  # drawn in this window
        self.known_D = np.zeros(num_domains, dtype=np.bool_)  # has an estimate, of this window or an earlier one
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
        for domain in set(domains):
            if not self.touched_D[domain]:
                self.sums_DP[domain] = 0
                self.weights_D[domain] = 0
                self.touched_D[domain] = True
        domains_N = torch.tensor(domains, device=self.sums_DP.device)
        weights_N = (counts_N * term_weight / step_weight).to(self.weights_D)
        self.weights_D.index_add_(0, domains_N, weights_N)
        self._micro_batch = _MicroBatch(domains_N, num_rows or len(domains), step_weight)

    def watch_loss(self, loss: Tensor) -> None:
        """Learn from the loss's own gradient how the backward pass is scaled."""
        micro_batch = self._micro_batch
        if micro_batch is not None and loss.requires_grad:
            weight = micro_batch.step_weight
            loss.register_hook(lambda gradient: setattr(micro_batch, "scale", gradient.float() * weight))

    def rest(self) -> None:
        """What runs from now on is not training."""
        self._micro_batch = None

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
        gradients_NB = torch.where(gradients_NB.sum(dim=1, keepdim=True).isfinite(), gradients_NB, 0)
        self.sums_DP[:, self.entries.slices[layer]].index_add_(0, micro_batch.domains_N, gradients_NB)

    def close_window(self) -> tuple[Tensor, NDArray[np.bool_]]:
        """Mean gradients (D, P) over all ranks and which domains have one (D); a new window begins.

        The tensor is the accumulator itself: read it before the next training batch.
        """
        self.rest()
        anywhere, keep = self._agree()
        self.sums_DP *= keep[:, None]
        self.weights_D *= keep
        ranks.sum_over_ranks(self.sums_DP, self.weights_D)
        self.sums_DP /= self.weights_D.clamp(min=1e-30)[:, None]
        self.weights_D.fill_(1)
        self.known_D |= anywhere.cpu().numpy()
        self.touched_D[:] = False
        return self.sums_DP, self.known_D.copy()

    def _agree(self) -> tuple[Tensor, Tensor]:
        """Which domains were drawn on any rank (D), and what this rank adds to the sum over ranks of each (D).

        Of a domain drawn somewhere, its share; of one drawn nowhere, the first rank's estimate, which all have.
        """
        touched = torch.tensor(self.touched_D, device=self.sums_DP.device, dtype=torch.float32)
        anywhere = touched.clone()
        ranks.sum_over_ranks(anywhere)
        return anywhere > 0, torch.where(anywhere > 0, touched, 1.0 if ranks.world()[0] == 0 else 0.0)

    def set_estimate(self, domain: int, gradient_P: Tensor) -> None:
        """Replace a domain's estimate, between two windows."""
        self.sums_DP[domain] = gradient_P
        self.weights_D[domain] = 1
        self.known_D[domain] = True

    def common(self) -> dict[str, Tensor]:
        """The estimates of earlier windows that count as long as no rank draws their domain."""
        rows = torch.tensor(np.flatnonzero(self.known_D & ~self.touched_D))
        return {
            "running_known": torch.tensor(self.known_D),
            "running_rows": rows,
            "running_estimates": self.sums_DP[rows.to(self.sums_DP.device)],
        }

    def share(self) -> dict[str, Tensor]:
        """What this rank has added up in the window so far."""
        rows = torch.tensor(np.flatnonzero(self.touched_D))
        on_device = rows.to(self.sums_DP.device)
        return {
            "running_rows": rows,
            "running_sums": self.sums_DP[on_device],
            "running_weights": self.weights_D[on_device],
        }

    def restore(self, common: dict[str, Tensor], shares: list[dict[str, Tensor]]) -> None:
        """Go on from what all ranks have in common, and from the shares that this rank takes over."""
        self.known_D = common["running_known"].numpy().copy()
        self.touched_D[:] = False
        self.sums_DP.zero_()
        self.weights_D.zero_()
        self._put(common["running_rows"], common["running_estimates"], torch.ones(len(common["running_rows"])))
        for share in shares:
            rows = share["running_rows"]
            fresh = rows[~torch.tensor(self.touched_D)[rows]].to(self.sums_DP.device)
            self.sums_DP[fresh] = 0
            self.weights_D[fresh] = 0
            self.touched_D[rows.numpy()] = True
            self._put(rows, share["running_sums"], share["running_weights"])

    def _put(self, rows: Tensor, sums_NP: Tensor, weights_N: Tensor) -> None:
        rows = rows.to(self.sums_DP.device)
        self.sums_DP.index_add_(0, rows, sums_NP.to(self.sums_DP))
        self.weights_D.index_add_(0, rows, weights_N.to(self.weights_D))
