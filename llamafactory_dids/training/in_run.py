"""In-run impact: the impact of each domain on each task, taken from the training batches as they come.

At the start of a window each task gets a direction (`core.fisher.directions`): its product with a gradient is the
first-order gain of the task. Each training sample's gradient is multiplied with the T directions at its own step, and
only the products are kept. Memory is T x P for any number of domains. A domain's impact does not depend on how often it
was drawn, and the spread of its samples gives the error (`core.moments`).
"""

import torch
from torch import Tensor

from ..core.moments import Estimates, Moments
from ..stages import ranks
from ..stages.entries import TrackedEntries
from ..stages.layers import TrackedLayers
from .watching import MicroBatch, WatchedGradients

SUMS = "in_run_"


class InRunImpact(WatchedGradients):
    """Sums of the products of D domains' samples with the directions of T tasks; fp32 products, float64 sums."""

    def __init__(
        self,
        num_domains: int,
        num_tasks: int,
        tracked: TrackedLayers,
        entries: TrackedEntries,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(tracked, entries, device)
        self.directions_TP = torch.zeros(num_tasks, entries.size, device=device)
        self._shape = num_domains, num_tasks
        self._moments = Moments(*self._shape, device)

    def aim(self, directions_TP: Tensor) -> None:
        """Begin a new window, along these directions."""
        self.rest()
        self.directions_TP = directions_TP.to(self.device)
        self._moments = Moments(*self._shape, self.device)

    def take(self, layer: int, gradients_NB: Tensor, micro_batch: MicroBatch) -> None:
        """Add the layer's part to each sample's products."""
        products_NT = gradients_NB @ self.directions_TP[:, self.entries.slices[layer]].T
        micro_batch.kept = products_NT if micro_batch.kept is None else micro_batch.kept + products_NT

    def settle(self) -> None:
        """Add the products of the last batch to the moments, now that they are complete."""
        batch = self._micro_batch
        if batch is not None and batch.kept is not None:
            self._moments.add(batch.domains_N, batch.weights_N, batch.kept)
            batch.kept = None
            self._micro_batch = None

    def close_window(self) -> Estimates:
        """The estimates from all ranks' samples in the window so far. `aim` begins the next window."""
        self.rest()
        ranks.sum_over_ranks(*self._moments.sums.values())
        return self._moments.estimates()

    def share(self) -> dict[str, Tensor]:
        """This rank's sums of the window so far."""
        self.settle()
        return {f"{SUMS}{name}": total for name, total in self._moments.sums.items()}

    def restore(self, shares: list[dict[str, Tensor]]) -> None:
        """Go on from the shares that this rank takes over."""
        self._moments = Moments(*self._shape, self.device)
        for share in shares:
            for name, total in self._moments.sums.items():
                total += share[f"{SUMS}{name}"].to(total)
