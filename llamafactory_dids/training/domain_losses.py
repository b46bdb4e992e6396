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
        losses_N = losses_N.detach().double().cpu()
        usable_N = (losses_N.isfinite() & (counts_N.cpu() > 0)).double()
        domains_N = torch.tensor(domains)
        self.sums_D.index_add_(0, domains_N, torch.where(usable_N > 0, losses_N, 0))
        self.counts_D.index_add_(0, domains_N, usable_N)

    def close_window(self) -> NDArray[np.float64]:
        """Mean loss of each domain over all ranks, shape D, NaN where none was drawn; a new window begins."""
        state = self.state()
        self.sums_D.zero_()
        self.counts_D.zero_()
        means_D: NDArray[np.float64] = (state["domain_loss_sums"] / state["domain_loss_counts"]).numpy()
        return means_D

    def state(self) -> dict[str, Tensor]:
        """What resuming needs, summed over the ranks; every rank has to ask."""
        sums_2D = torch.stack([self.sums_D, self.counts_D])
        ranks.sum_over_ranks(sums_2D)
        return {"domain_loss_sums": sums_2D[0], "domain_loss_counts": sums_2D[1]}

    def restore(self, state: dict[str, Tensor]) -> None:
        """Go on from `state`: the first rank holds the sums, the others begin at zero."""
        share = 1.0 if ranks.world()[0] == 0 else 0.0
        self.sums_D.copy_(state["domain_loss_sums"] * share)
        self.counts_D.copy_(state["domain_loss_counts"] * share)
