"""The gradient stage: each training sample's gradient, its largest entries, projected, to disk (section 4.1).

For each part of the store: batches of like length go through the gradient engine; of each sample the top
share by magnitude is kept and projected to K dims. Cost: a forward pass plus the backward pass of the tracked
blocks; memory: one batch of gradients, whatever the size of the data set.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..core.projection import Projection
from ..core.selection import keep_largest
from .batching import Collate, length_batches, to_device
from .filling import Block
from .layers import TrackedLayers
from .losses import Objective
from .per_sample import GradientEngine, sample_gradients

MAX_BATCH_TOKENS = 16_384
MEMORY_SHARE = 0.25  # of the free memory of the device, for a batch's gradients


@dataclass(frozen=True)
class Samples:
    """Tokenised samples: `collate` makes a batch of `rows`, `lengths[i]` are the tokens that row i takes in it."""

    rows: Sequence[Mapping[str, Any]]
    lengths: Sequence[int]
    collate: Collate


class SampleProjector:
    """Batch in, one projected gradient a sample out."""

    def __init__(
        self,
        model: torch.nn.Module,
        tracked: TrackedLayers,
        objective: Objective,
        topk_ratio: float,
        dim: int,
        seed: int,
    ) -> None:
        self.engine = GradientEngine(model, tracked, objective)
        self.device = next(model.parameters()).device
        self.topk_ratio = topk_ratio
        self.projection = Projection(tracked.num_entries(), dim, seed)

    def project(self, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Projected gradients (N, K) in fp32, and which samples have one (N, bool)."""
        _, counts_N, pairs = self.engine.run(to_device(batch, self.device))
        gradients_NP = torch.cat([sample_gradients(x, y).flatten(1) for x, y in pairs], dim=1)
        del pairs
        projected_NK = self.projection.project_sparse(*keep_largest(gradients_NP, self.topk_ratio))
        norm_N = projected_NK.norm(dim=1)
        return projected_NK, (counts_N > 0) & torch.isfinite(norm_N) & (norm_N > 0)


class GradientFeatures:
    """The projected gradients of the samples, in batches of like length that fit into memory."""

    name = "gradients"
    unit = "tokens"

    def __init__(self, samples: Samples, projector: SampleProjector) -> None:
        self.samples = samples
        self.projector = projector

    def blocks(self, rows: range) -> Iterator[Block]:
        """The gradients of these samples."""
        samples = self.samples
        for places in self._batches(rows):
            values_NK, ok_N = self.projector.project(samples.collate([dict(samples.rows[rows[i]]) for i in places]))
            yield Block(places, values_NK, ok_N, sum(samples.lengths[rows[i]] for i in places))

    def _batches(self, rows: range) -> list[list[int]]:
        num_entries = self.projector.projection.input_dim
        # four arrays of P entries a sample at the peak: the gradient, its magnitudes, and the entries kept
        max_samples = max(1, int(_free_bytes(self.projector.device) * MEMORY_SHARE) // (4 * 4 * num_entries))
        return length_batches([self.samples.lengths[i] for i in rows], min(64, max_samples), MAX_BATCH_TOKENS)


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 4 << 30
