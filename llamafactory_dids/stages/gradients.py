"""The gradient stage: each training sample's gradient, its largest entries, projected, to disk (section 4.1).

For each part of the store: batches of like length go through the gradient engine; of each sample the top
share by magnitude is kept and projected to K dims. Cost: a forward pass plus the backward pass of the tracked
blocks. Memory: the activations of a batch of at most `MAX_BATCH` tokens, and whole gradients of the few samples that
fit into `MEMORY_SHARE` of what is free, whatever the size of the batch and of the data set. A batch for which memory
runs out is halved, and so are those after it.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import torch

from ..core.fused import project_largest
from ..core.projection import Projection
from ..errors import DidsError
from .batching import Collate, length_batches, to_device
from .filling import Block
from .layers import TrackedLayers
from .losses import Objective
from .per_sample import GradientEngine, sample_gradients

logger = logging.getLogger(__name__)

MAX_BATCH = {"cpu": (64, 16_384), "cuda": (256, 32_768)}  # samples, tokens: enough to keep the device busy
MEMORY_SHARE = 0.25  # of the free memory of a GPU, for whole gradients
_COPIES = 2  # of a gradient at the peak: its row, and its magnitudes


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
        at_once = min(self._samples_at_once(), len(counts_N))
        gradients_NP = torch.empty((at_once, self.projection.input_dim), device=self.device)  # of one group at a time
        groups = [slice(start, start + at_once) for start in range(0, len(counts_N), at_once)]
        projected_NK = torch.cat([self._project([(x[g], y[g]) for x, y in pairs], gradients_NP) for g in groups])
        norm_N = projected_NK.norm(dim=1)
        return projected_NK, (counts_N > 0) & torch.isfinite(norm_N) & (norm_N > 0)

    def _project(self, pairs: list[tuple[torch.Tensor, torch.Tensor]], gradients_NP: torch.Tensor) -> torch.Tensor:
        gradients_NP = gradients_NP[: len(pairs[0][0])]
        start = 0
        for x, y in pairs:  # each layer's at its place in the row: joined afterwards, all would be written twice
            stop = start + x.shape[-1] * y.shape[-1]
            sample_gradients(x, y, gradients_NP[:, start:stop].unflatten(1, (y.shape[-1], x.shape[-1])))
            start = stop
        return project_largest(gradients_NP, self.topk_ratio, self.projection)

    def _samples_at_once(self) -> int:
        """Whose gradients are whole at the same time: on a CPU one, which stays in its cache."""
        if self.device.type != "cuda":
            return 1
        kept_by_torch = torch.cuda.memory_reserved(self.device) - torch.cuda.memory_allocated(self.device)
        free = torch.cuda.mem_get_info(self.device)[0] + kept_by_torch
        return max(1, int(free * MEMORY_SHARE) // (4 * _COPIES * self.projection.input_dim))


class GradientFeatures:
    """The projected gradients of the samples, in batches of like length of at most `max_samples`."""

    name = "gradients"
    unit = "tokens"

    def __init__(self, samples: Samples, projector: SampleProjector) -> None:
        self.samples = samples
        self.projector = projector
        self.max_samples, self.max_tokens = MAX_BATCH.get(projector.device.type, MAX_BATCH["cpu"])

    def blocks(self, rows: range) -> Iterator[Block]:
        """The gradients of these samples. Raises DidsError where memory does not even do for one."""
        for places, batch in self._collated(rows, self.batches(rows)):
            yield from self._blocks(rows, places, batch)

    def batches(self, rows: range) -> list[list[int]]:
        """The places of the samples of each batch."""
        return length_batches([self.samples.lengths[i] for i in rows], self.max_samples, self.max_tokens)

    def _collated(self, rows: range, batches: list[list[int]]) -> Iterator[tuple[list[int], Mapping[str, Any]]]:
        """Each batch, and what the model takes of it; while a GPU computes, the next one is made."""
        if self.projector.device.type != "cuda":
            yield from ((places, self._collate(rows, places)) for places in batches)
            return
        with ThreadPoolExecutor(1) as pool:
            ahead = [pool.submit(self._collate, rows, places) for places in batches[:1]]
            for number, places in enumerate(batches):
                batch = ahead.pop().result()
                ahead += [pool.submit(self._collate, rows, later) for later in batches[number + 1 : number + 2]]
                yield places, batch

    def _collate(self, rows: range, places: list[int]) -> Mapping[str, Any]:
        return self.samples.collate([dict(self.samples.rows[rows[i]]) for i in places])

    def _blocks(self, rows: range, places: list[int], batch: Mapping[str, Any]) -> Iterator[Block]:
        """The gradients of a batch, in parts where it is too large."""
        if len(places) <= self.max_samples:
            try:
                values_NK, ok_N = self.projector.project(batch)
            except torch.OutOfMemoryError as error:
                self._step_down(len(places), error)
            else:
                yield Block(places, values_NK, ok_N, sum(self.samples.lengths[rows[i]] for i in places))
                return
        for start in range(0, len(places), size := self.max_samples):
            part = places[start : start + size]
            yield from self._blocks(rows, part, self._collate(rows, part))

    def _step_down(self, num_samples: int, error: torch.OutOfMemoryError) -> None:
        if num_samples == 1:
            raise DidsError(
                "dids_proxy_model: the gradient of one sample does not fit into the GPU's memory; allowed: a smaller "
                "proxy, cutoff_len or dids_gradient_layers"
            ) from error
        self.max_samples = num_samples // 2
        torch.cuda.empty_cache()
        logger.warning(
            "gradients: %d samples at a time are too many for the memory, now %d", num_samples, self.max_samples
        )
