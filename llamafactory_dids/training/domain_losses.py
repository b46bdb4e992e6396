"""Statistics of each domain from the training batches, without a pass: mean loss in a window, and terms so far.

A batch's numbers wait on the device and are fetched for many batches at once, because each fetch waits for the device.
"""

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ..stages import ranks

MOST_WAITING = 64  # batches that wait


class Seen(NamedTuple):
    """The mean loss of each domain's samples in the window, and its terms so far (D), over all ranks.

    The loss is NaN if no sample of the domain was drawn.
    """

    losses_D: NDArray[np.float64]
    terms_D: NDArray[np.int64]


class DomainLosses:
    """Sums over the samples of D domains, float64 on the CPU.

    `window` covers this rank's window: the sum of the losses, their number, and the terms of the stage's loss (labelled
    tokens, pairs or answers). `terms_D` covers all ranks and all closed windows. `tells` becomes false if a batch gives
    no losses.
    """

    def __init__(self, num_domains: int) -> None:
        self.terms_D = torch.zeros(num_domains, dtype=torch.float64)
        self.window = {name: torch.zeros_like(self.terms_D) for name in ("sums", "counts", "terms")}
        self.tells = True
        self._waiting: list[tuple[list[int], Tensor, Tensor]] = []

    def add(self, domains: list[int], losses_N: Tensor | None, counts_N: Tensor) -> None:
        """Add a training batch. A loss counts if it is finite and its sample has terms."""
        if losses_N is None:
            self.tells, losses_N = False, torch.full(counts_N.shape, torch.nan, device=counts_N.device)
        self._waiting.append((domains, losses_N.detach().float(), counts_N.detach()))
        if len(self._waiting) >= MOST_WAITING:
            self._fetch()

    def _fetch(self) -> None:
        if not self._waiting:
            return
        domains, losses, counts = zip(*self._waiting, strict=True)
        self._waiting.clear()
        domains_N = torch.tensor([domain for batch in domains for domain in batch])
        losses_N, counts_N = torch.cat(losses).cpu().double(), torch.cat(counts).cpu().double()
        usable_N = (losses_N.isfinite() & (counts_N > 0)).double()
        parts = {"sums": torch.where(usable_N > 0, losses_N, 0), "counts": usable_N, "terms": counts_N}
        for name, part_N in parts.items():
            self.window[name].index_add_(0, domains_N, part_N)

    def look(self) -> Seen:
        """The statistics so far. Every rank must call it. The window stays open."""
        self._fetch()
        sums_D, counts_D, terms_D = (total_D.clone() for total_D in self.window.values())
        ranks.sum_over_ranks(sums_D, counts_D, terms_D)
        return Seen((sums_D / counts_D).numpy(), (self.terms_D + terms_D).long().numpy())

    def close_window(self) -> Seen:
        """The statistics so far. Every rank must call it. A new window begins."""
        seen = self.look()
        self.terms_D = torch.tensor(seen.terms_D, dtype=torch.float64)
        for total_D in self.window.values():
            total_D.zero_()
        return seen

    def common(self) -> dict[str, Tensor]:
        """The tensors to save that are the same on all ranks."""
        return {"domain_terms": self.terms_D}

    def share(self) -> dict[str, Tensor]:
        """This rank's sums of the window so far."""
        self._fetch()
        return {f"domain_loss_{name}": total_D for name, total_D in self.window.items()}

    def restore(self, common: dict[str, Tensor], shares: list[dict[str, Tensor]]) -> None:
        """Go on from the tensors common to all ranks, and the shares that this rank takes over.

        A checkpoint of an earlier version may lack both. The training before it is then not counted.
        """
        self._waiting.clear()
        self.terms_D = common.get("domain_terms", torch.zeros_like(self.terms_D)).clone()
        for name, total_D in self.window.items():
            total_D.zero_()
            for share in shares:
                total_D += share.get(f"domain_loss_{name}", torch.zeros_like(total_D))
