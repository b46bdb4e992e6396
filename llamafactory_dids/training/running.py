"""The running gradient of each domain: the mean over a window's training samples, weighted by terms as in training.

A domain without a labelled sample in the window keeps its last estimate. The estimate enters the sums of the next
window with a tiny weight, which vanishes beside any sample and is all there is without samples.
"""

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..stages import ranks
from ..stages.entries import TrackedEntries
from ..stages.layers import TrackedLayers
from .watching import MicroBatch, WatchedGradients

LAST_ESTIMATE = 2.0**-40  # its weight; a power of two gives an estimate without samples back to the last digit


class RunningGradients(WatchedGradients):
    """Sums of D domains' gradients over the P tracked entries; fp32, on the training's device.

    Between two windows `sums_DP` holds the estimates, and `weights_D` is 1 for each domain that has one, else 0.
    """

    def __init__(
        self,
        num_domains: int,
        tracked: TrackedLayers,
        entries: TrackedEntries,
        device: torch.device | str = "cpu",
    ) -> None:
        super().__init__(tracked, entries, device)
        self.sums_DP = torch.zeros(num_domains, entries.size, device=device)
        self.weights_D = torch.zeros(num_domains, device=device)
        self._window_is_open = False

    def watch(self, *batch: Any, **how: Any) -> None:
        """Open the window at its first batch, then watch as any watched gradients do."""
        self._open_window()
        super().watch(*batch, **how)

    def take(self, layer: int, gradients_NB: Tensor, micro_batch: MicroBatch) -> None:
        """Add each sample's gradient to its domain's sum."""
        self.sums_DP[:, self.entries.slices[layer]].index_add_(0, micro_batch.domains_N, gradients_NB)
        if micro_batch.kept is None:
            self.weights_D.index_add_(0, micro_batch.domains_N, micro_batch.weights_N)
            micro_batch.kept = True

    def _open_window(self) -> None:
        """Turn estimates into sums. Only the first rank carries the last estimates into the window."""
        if not self._window_is_open:
            weight = LAST_ESTIMATE if ranks.world()[0] == 0 else 0.0
            self.sums_DP *= weight
            self.weights_D *= weight
            self._window_is_open = True

    def close_window(self) -> tuple[Tensor, NDArray[np.bool_]]:
        """Mean gradients (D, P) over all ranks, and whether each domain has one (D). A new window begins.

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
        """Replace a domain's estimate between two windows. A gradient that is not finite removes the estimate."""
        assert not self._window_is_open, "an estimate is set between two windows"
        known = bool(gradient_P.isfinite().all())
        self.sums_DP[domain] = gradient_P if known else 0
        self.weights_D[domain] = float(known)

    def share(self) -> dict[str, Tensor]:
        """This rank's sums of the window so far, for the domains with a weight.

        The first rank's share includes the last estimates.
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
