"""The gradient stage's work on whole tensors on a GPU, with as few reads of the gradients as possible.

`keep_largest` followed by `project_sparse` reads a gradient some ten times, and waits for the GPU five times a row.
`project_largest` reads it twice. A sample of each row's entries gives two magnitudes that almost surely enclose the
threshold (Floyd and Rivest 1975). The first read counts the entries above both, and at each magnitude between them; the
counts give the exact threshold. The second read adds the entries above it to the projection. The same entries are kept
as by `keep_largest`, ties included. A row whose sample misses the threshold takes the slow path.

Magnitudes are compared by their bits as integers. In this order NaN is the largest.

Shapes: `N` samples, `P` tracked parameters, `K` output entries, `S` sampled entries, `B` magnitudes between the two,
`T` entries that tie at the threshold.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from . import gpu
from .projection import Projection
from .selection import keep_largest, num_kept

_SAMPLED = 1 << 17
_DEVIATIONS = 5.0  # standard deviations of the estimate, on either side of the threshold
_MAGNITUDES = 1 << 20  # magnitudes that are counted one by one
_TIES = 1 << 12  # ties that a row has room for
_LARGEST = 0x7FFFFFFF  # bits of a magnitude


def project_largest(gradients_NP: Tensor, ratio: float, projection: Projection) -> Tensor:
    """The projection (N, K, float32) of each row's ceil(ratio * P) entries of largest magnitude.

    Raises ValueError as `keep_largest` and `Projection.project_sparse` do.

    >>> gradients_NP = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0))
    >>> project_largest(gradients_NP, 0.1, Projection(1000, 16)).shape
    torch.Size([2, 16])
    """
    fusable = gpu.has_kernels(gradients_NP) and gradients_NP.dtype == torch.float32
    if not fusable or gradients_NP.shape[1] > _LARGEST:
        return projection.project_sparse(*keep_largest(gradients_NP, ratio))
    return _project_largest(gradients_NP, ratio, projection)


@torch.no_grad()
def _project_largest(gradients_NP: Tensor, ratio: float, projection: Projection) -> Tensor:
    kept = num_kept(gradients_NP.shape[1], ratio)
    threshold_N, ties_N, lucky_N = _thresholds(gradients_NP, kept)
    y_NK, num_ties_N = _add_above(gradients_NP, threshold_N, ties_N, projection)
    projected_NK = y_NK.float()
    for row in (~lucky_N | (num_ties_N > _TIES)).nonzero().squeeze(1).tolist():
        projected_NK[row] = projection.project_sparse(*keep_largest(gradients_NP[row : row + 1], ratio))[0]
    return projected_NK


def _thresholds(gradients_NP: Tensor, kept: int) -> tuple[Tensor, Tensor, Tensor]:
    """Bits of the last kept magnitude (N), number of kept ties at it (N), and whether both are known (N)."""
    low_N, high_N = _bounds(gradients_NP, kept)
    num_rows = len(gradients_NP)
    sure_N = torch.zeros_like(low_N)
    counts_NB = torch.zeros((num_rows, _MAGNITUDES), dtype=torch.int32, device=low_N.device)
    gpu.run_on_rows(
        gpu.kernels.count_magnitudes, gradients_NP, low_N, high_N, sure_N, counts_NB, MAGNITUDES=_MAGNITUDES
    )
    need_N = kept - sure_N
    # Entries beyond the number needed are dropped, from the smallest magnitude upwards.
    outside_N1 = (counts_NB.sum(dim=1, dtype=torch.int32) - need_N)[:, None]
    counts_NCF = counts_NB.reshape(num_rows, -1, 1 << 10)  # in two levels: one scan along so long a row would be slow
    coarse_N1, below_N1, _ = _first_beyond(counts_NCF.sum(dim=2, dtype=torch.int32), outside_N1)
    counts_NF = counts_NCF.gather(1, coarse_N1[:, :, None].expand(-1, -1, counts_NCF.shape[2]))[:, 0]
    fine_N1, _, up_to_N1 = _first_beyond(counts_NF, outside_N1 - below_N1)
    threshold_N = torch.minimum(low_N + (coarse_N1 * counts_NCF.shape[2] + fine_N1)[:, 0].int(), high_N - 1)
    ties_N = (up_to_N1 - (outside_N1 - below_N1))[:, 0].clamp(min=0).where(need_N > 0, 0)
    return threshold_N, ties_N, (need_N >= 0) & (outside_N1[:, 0] >= 0)


def _first_beyond(counts_NB: Tensor, rank_N1: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """First place (N, 1) at which the running count exceeds `rank_N1`; the counts before it, and up to it."""
    up_to_NB = counts_NB.cumsum(dim=1, dtype=torch.int32)
    place_N1 = torch.searchsorted(up_to_NB, rank_N1.contiguous(), right=True).clamp(max=up_to_NB.shape[1] - 1)
    up_to_N1 = up_to_NB.gather(1, place_N1)
    return place_N1, up_to_N1 - counts_NB.gather(1, place_N1), up_to_N1


def _bounds(gradients_NP: Tensor, kept: int) -> tuple[Tensor, Tensor]:
    """Bits (N, int32) of two magnitudes: entries below the first are dropped, entries from the second on are kept."""
    num_entries = gradients_NP.shape[1]
    # An odd stride visits the rows and columns of a layer, whose sizes are even, alike.
    sampled_NS = gradients_NP[:, :: max(1, num_entries // _SAMPLED) | 1].contiguous()
    count, share = sampled_NS.shape[1], kept / num_entries
    margin = _DEVIATIONS * math.sqrt(count * share * (1.0 - share)) + 1
    first, last = max(1, math.floor(share * count - margin)), min(count, math.ceil(share * count + margin) + 1)
    top_NS = (sampled_NS.view(torch.int32) & _LARGEST).topk(last, dim=1, sorted=False).values
    low_N = top_NS.amin(dim=1)
    high_N = top_NS.topk(first, dim=1, sorted=False).values.amin(dim=1)
    # The range holds at least one magnitude, so that ties at the threshold are counted, and at most _MAGNITUDES.
    return low_N, torch.clamp(high_N, min=(low_N + 1), max=(low_N + _MAGNITUDES)).clamp(min=1)


def _add_above(
    gradients_NP: Tensor, threshold_N: Tensor, ties_N: Tensor, projection: Projection
) -> tuple[Tensor, Tensor]:
    """The projection (N, K, float64) of entries above the threshold and `ties_N` ties; the number of ties (N)."""
    codes_P = projection.codes_on(gradients_NP.device)
    y_NK = torch.zeros((len(gradients_NP), projection.output_dim), dtype=torch.float64, device=gradients_NP.device)
    num_ties_N = torch.zeros_like(threshold_N)
    index_NT = torch.full((len(y_NK), _TIES), _LARGEST, dtype=torch.int32, device=y_NK.device)
    gpu.run_on_rows(
        gpu.kernels.add_above,
        gradients_NP,
        codes_P,
        threshold_N,
        y_NK,
        num_ties_N,
        index_NT,
        projection.output_dim,
        TIES=_TIES,
    )
    index_NT = index_NT.sort(dim=1).values
    kept_NT = torch.arange(_TIES, device=y_NK.device) < torch.minimum(ties_N, num_ties_N)[:, None]
    index_NT = index_NT.where(kept_NT, 0).long()
    code_NT, value_NT = codes_P[index_NT], gradients_NP.gather(1, index_NT).double()
    value_NT = torch.where(kept_NT, torch.where((code_NT & 1) == 1, -value_NT, value_NT), 0.0)
    return y_NK.scatter_add_(1, (code_NT >> 1).long(), value_NT), num_ties_N
