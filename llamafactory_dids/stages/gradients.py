"""The gradient stage: each training sample's gradient, its largest entries, projected, to disk (section 4.1).

Batches of similar length go through the gradient engine. The largest entries of each sample's gradient are kept and
projected to K dims. Cost: a forward pass, and a backward pass through the tracked blocks. Memory: the activations of a
batch of at most `MAX_BATCH` tokens, and the whole gradients of as many samples as fit into `MEMORY_SHARE` of the free
memory. A batch that does not fit into memory is halved, and so are later batches (`passes`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..core import devices
from ..core.fused import project_largest
from ..core.projection import Projection
from .batching import Collate
from .filling import Block
from .layers import TrackedLayers
from .losses import Objective
from .passes import Passes
from .per_sample import GradientEngine, sample_gradients

MAX_BATCH_OF_CPU = (64, 16_384)  # samples, tokens: enough to keep a CPU busy
MAX_BATCH = (256, 32_768)  # samples, tokens of an accelerator's batch
MEMORY_SHARE = 0.25  # of the free memory of an accelerator, for whole gradients
_COPIES = 2  # copies of a gradient at the peak: the row and its magnitudes


@dataclass(frozen=True)
class Samples:
    """Tokenised samples. `collate` makes a batch of `rows`, in which row i takes `lengths[i]` tokens."""

    rows: Sequence[Mapping[str, Any]]
    lengths: Sequence[int]
    collate: Collate


class SampleProjector:
    """Projects the gradient of each sample of a batch."""

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
        """Projected gradients (N, K, fp32), and whether each sample has one (N, bool)."""
        _, counts_N, pairs, scale_N = self.engine.run(batch)
        at_once = min(self._samples_at_once(), len(counts_N))
        gradients_NP = torch.empty((at_once, self.projection.input_dim), device=self.device)  # for one group at a time
        groups = [slice(start, start + at_once) for start in range(0, len(counts_N), at_once)]
        scaled_NK = torch.cat([self._project([(x[g], y[g]) for x, y in pairs], gradients_NP) for g in groups])
        projected_NK = scaled_NK / scale_N.to(scaled_NK)[:, None]
        norm_N = projected_NK.norm(dim=1)
        return projected_NK, (counts_N > 0).to(norm_N.device) & torch.isfinite(norm_N) & (norm_N > 0)

    def _project(self, pairs: list[tuple[torch.Tensor, torch.Tensor]], gradients_NP: torch.Tensor) -> torch.Tensor:
        gradients_NP = gradients_NP[: len(pairs[0][0])]
        start = 0
        for x, y in pairs:  # each layer writes into its part of the row: joining afterwards would write all twice
            stop = start + x.shape[-1] * y.shape[-1]
            sample_gradients(x, y, gradients_NP[:, start:stop].unflatten(1, (y.shape[-1], x.shape[-1])))
            start = stop
        return project_largest(gradients_NP, self.topk_ratio, self.projection)

    def _samples_at_once(self) -> int:
        """Number of samples whose whole gradients are in memory at once: one on a CPU, which stays in its cache."""
        memory = None if self.device.type == "cpu" else devices.memory(self.device)
        if memory is None:
            return 1
        return max(1, int(memory[0] * MEMORY_SHARE) // (4 * _COPIES * self.projection.input_dim))


class GradientFeatures:
    """The projected gradients of the samples, in batches of similar length of at most `passes.max_samples`."""

    name = "gradients"
    unit = "tokens"

    def __init__(self, samples: Samples, projector: SampleProjector) -> None:
        self.samples = samples
        self.projector = projector
        limits = MAX_BATCH_OF_CPU if projector.device.type == "cpu" else MAX_BATCH
        advice = "a smaller dids_proxy_model, cutoff_len or dids_gradient_layers"
        self.passes = Passes("dids_proxy_model", advice, *limits, projector.device, together=False)

    def blocks(self, rows: range) -> Iterator[Block]:
        """The gradients of these samples. Raises DidsError if memory is too small for a single sample."""
        lengths = [self.samples.lengths[i] for i in rows]

        def collate(places: list[int]) -> Mapping[str, Any]:
            return self.samples.collate([dict(self.samples.rows[rows[i]]) for i in places])

        for places, (values_NK, ok_N) in self.passes.over(lengths, collate, self.projector.project):
            yield Block(places, values_NK, ok_N, sum(lengths[i] for i in places))
