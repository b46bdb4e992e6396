"""The gradient entries that are compared at an update: a fixed random block of each tracked matrix.

Rows and columns are drawn once, so sums over the entries are unbiased up to scale. Memory is domains x entries,
whatever the model's size or the sharding of its parameters (method section 2).
"""

import math

import torch
from torch import Tensor

from .layers import TrackedLayers
from .per_sample import sample_gradients


class TrackedEntries:
    """At most about `budget` entries over all tracked layers, chosen by `seed`; `size` is their number (P)."""

    def __init__(self, tracked: TrackedLayers, budget: int, seed: int) -> None:
        share = min(1.0, math.sqrt(budget / tracked.num_entries()))
        generator = torch.Generator().manual_seed(seed)
        self.rows: list[Tensor] = []
        self.columns: list[Tensor] = []
        self.slices: list[slice] = []
        start = 0
        for outputs, inputs in tracked.shapes():
            self.rows.append(_choose(outputs, share, generator))
            self.columns.append(_choose(inputs, share, generator))
            stop = start + len(self.rows[-1]) * len(self.columns[-1])
            self.slices.append(slice(start, stop))
            start = stop
        self.size = start

    def inputs(self, layer: int, x_NSI: Tensor) -> Tensor:
        """The chosen columns of a layer's input, shape (N, S, C). The gradient needs no others."""
        return self._take(self.columns, layer, x_NSI)

    def gradients(self, layer: int, x_NSC: Tensor, y_gradient_NSO: Tensor) -> Tensor:
        """Each sample's gradient on this layer's block, flattened, fp32, shape (N, R * C)."""
        return sample_gradients(x_NSC, self._take(self.rows, layer, y_gradient_NSO)).flatten(1)

    def _take(self, chosen: list[Tensor], layer: int, values: Tensor) -> Tensor:
        if len(chosen[layer]) == values.shape[-1]:
            return values
        if chosen[layer].device != values.device:
            chosen[layer] = chosen[layer].to(values.device)
        # as a matrix: on a CPU torch takes columns of a 3-D tensor one by one, ten times slower
        taken = values.reshape(values.shape[:-1].numel(), values.shape[-1]).index_select(1, chosen[layer])
        return taken.reshape(*values.shape[:-1], len(chosen[layer]))


def _choose(count: int, share: float, generator: torch.Generator) -> Tensor:
    return torch.randperm(count, generator=generator)[: max(1, int(count * share))].sort().values
