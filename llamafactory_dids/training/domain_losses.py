"""The mean training loss of each domain's samples in the window, from the training batches, at no extra pass."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..stages import ranks


class DomainLosses:
    """Sums over the samples of D domains that have terms; float64 on the CPU."""

    def __init__(self, num_domains: int) -> None:
        self.sums_D = torch.zeros(num_domains, dtype=torch.float64)
        self.counts_D = torch.zeros(num_domains, dtype=torch.float64)

    def add(self, domains: list[int], losses_N: Tensor, counts_N: Tensor) -> None:
        """A training batch; a loss that is not finite, and a sample without terms, do not count."""
        losses_N = losses_N.detach().cpu().double()
        usable_N = (losses_N.isfinite() & (counts_N.cpu() > 0)).double()
        domains_N = torch.tensor(domains)
        self.sums_D.index_add_(0, domains_N, torch.where(usable_N > 0, losses_N, 0))
        self.counts_D.index_add_(0, domains_N, usable_N)

    def close_window(self) -> NDArray[np.float64]:
        """Mean loss of each domain over all ranks, shape D, NaN where none was drawn; a new window begins."""
        ranks.sum_over_ranks(self.sums_D, self.counts_D)
        means_D: NDArray[np.float64] = (self.sums_D / self.counts_D).numpy()
        self.sums_D.zero_()
        self.counts_D.zero_()
        return means_D

    def share(self) -> dict[str, Tensor]:
        """What this rank has added up in the window so far."""
        return {"domain_loss_sums": self.sums_D, "domain_loss_counts": self.counts_D}

    def restore(self, shares: list[dict[str, Tensor]]) -> None:
        """Go on from the shares that this rank takes over."""
        self.sums_D.zero_()
        self.counts_D.zero_()
        for share in shares:
            self.sums_D += share["domain_loss_sums"]
            self.counts_D += share["domain_loss_counts"]
