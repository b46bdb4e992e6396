"""The gradient stage: each training sample's gradient, its largest entries, projected, to disk (section 4.1).

For each part of the store: batches of like length go through the gradient engine; of each sample the top
share by magnitude is kept and projected to K dims. Cost: a forward pass plus the backward pass of the tracked
blocks; memory: one batch of gradients, whatever the size of the data set. Ranks share the parts.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from ..artifacts.gradient_store import GradientStore
from ..core.projection import Projection
from ..core.selection import keep_largest
from ..errors import DidsError
from . import ranks
from .batching import Collate, length_batches, to_device
from .layers import TrackedLayers
from .per_sample import GradientEngine, sample_gradients

logger = logging.getLogger(__name__)

MAX_BATCH_TOKENS = 16_384
MEMORY_SHARE = 0.25  # of the free memory of the device, for a batch's gradients


@dataclass(frozen=True)
class Samples:
    """Tokenised samples: `rows[i]` is a mapping with `input_ids` (and `labels`), `lengths[i]` its tokens."""

    rows: Sequence[Mapping[str, Any]]
    lengths: Sequence[int]
    collate: Collate


class SampleProjector:
    """Batch in, one projected gradient a sample out."""

    def __init__(self, model: torch.nn.Module, tracked: TrackedLayers, topk_ratio: float, dim: int, seed: int) -> None:
        self.engine = GradientEngine(model, tracked)
        self.device = next(model.parameters()).device
        self.topk_ratio = topk_ratio
        self.projection = Projection(tracked.num_entries(), dim, seed)

    def project(self, batch: Mapping[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Projected gradients (N, K) in fp32, and which samples have one (N, bool)."""
        _, tokens_N, pairs = self.engine.run(to_device(batch, self.device))
        gradients_NP = torch.cat([sample_gradients(x, y).flatten(1) for x, y in pairs], dim=1)
        del pairs
        projected_NK = self.projection.project_sparse(*keep_largest(gradients_NP, self.topk_ratio))
        norm_N = projected_NK.norm(dim=1)
        return projected_NK, (tokens_N > 0) & torch.isfinite(norm_N) & (norm_N > 0)


def fill_store(store: GradientStore, samples: Samples, projector: SampleProjector) -> None:
    """Compute the parts of the store that are missing, shared out over the ranks; returns when all are there.

    Raises DidsError on every rank if one of them failed; finished parts stay.
    """
    ranks.wait_for_all()
    missing = store.missing_parts()
    ranks.wait_for_all()  # so that every rank listed the same parts before the first one is written
    rank, num_ranks = ranks.world()
    if missing:
        done = store.num_parts - len(missing)
        logger.info("gradient stage: %d of %d parts to compute in %s", len(missing), store.num_parts, store.folder)
        if done:
            logger.info("gradient stage: going on after %d finished parts", done)
    failure: BaseException | None = None
    try:
        _fill_parts(store, samples, projector, missing[rank::num_ranks], show=rank == 0)
    except (DidsError, OSError, RuntimeError, ValueError) as error:
        failure = error
    if messages := ranks.all_failures(failure):
        raise failure or DidsError(f"gradient stage: another process failed: {messages[0]}")


def _fill_parts(
    store: GradientStore, samples: Samples, projector: SampleProjector, parts: list[int], show: bool
) -> None:
    total = sum(len(store.rows(part)) for part in parts)
    with tqdm(total=total, desc="Gradients", unit="sample", disable=not show or not total) as bar:
        num_tokens = 0
        for part in parts:
            rows = store.rows(part)
            projected_RK = np.zeros((len(rows), store.dim), dtype=np.float32)
            written_R = np.zeros(len(rows), dtype=np.bool_)
            for batch in _batches(rows, samples, projector):
                values_NK, ok_N = projector.project(samples.collate([dict(samples.rows[rows[i]]) for i in batch]))
                projected_RK[batch] = values_NK.cpu().numpy()
                written_R[batch] = ok_N.cpu().numpy()
                num_tokens += sum(samples.lengths[rows[i]] for i in batch)
                bar.update(len(batch))
                bar.set_postfix_str(f"{num_tokens / max(bar.format_dict['elapsed'], 1e-9):,.0f} tokens/s")
            store.write_part(part, *_unit_rows(projected_RK, written_R), written_R)


def _batches(rows: range, samples: Samples, projector: SampleProjector) -> list[list[int]]:
    num_entries = projector.projection.input_dim
    # four arrays of P entries a sample at the peak: the gradient, its magnitudes, and the entries kept
    max_samples = max(1, int(_free_bytes(projector.device) * MEMORY_SHARE) // (4 * 4 * num_entries))
    return length_batches([samples.lengths[i] for i in rows], min(64, max_samples), MAX_BATCH_TOKENS)


def _free_bytes(device: torch.device) -> int:
    return torch.cuda.mem_get_info(device)[0] if device.type == "cuda" else 4 << 30


def _unit_rows(
    projected_RK: NDArray[np.float32], written_R: NDArray[np.bool_]
) -> tuple[NDArray[np.float16], NDArray[np.float32]]:
    projected_RK = np.where(written_R[:, None], projected_RK, 0)
    norm_R = np.linalg.norm(projected_RK, axis=1)
    unit_RK = projected_RK / np.maximum(norm_R, 1e-30)[:, None]
    return unit_RK.astype(np.float16), norm_R.astype(np.float32)
