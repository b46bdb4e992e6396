"""The largest entries of each gradient by magnitude (section 5.4's "top 10%"; method.md, section 1).

The result is exact, and costs about two reads of the gradient. A sample of a row's entries gives a magnitude that is
almost surely below the row's threshold (Floyd and Rivest 1975). Only the few entries above it are candidates. A `topk`
over the whole row costs several times as much.

Shapes: `N` samples, `P` tracked parameters, `M` kept entries, `C` candidates.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

_SAMPLED = 1 << 15  # entries in the sample
_PIECE = 1 << 16  # entries that a CPU processes at a time
_DEVIATIONS = 5.0  # standard deviations of the estimate between the bound and the threshold


def num_kept(num_entries: int, ratio: float) -> int:
    """ceil(ratio * num_entries), exact in the decimal digits of `ratio`: 0.07 of 100 is 7, not 8.

    >>> num_kept(100, 0.07)
    7
    """
    if not 0.0 < ratio <= 1.0:
        raise ValueError(f"dids_topk_ratio: got {ratio!r}, allowed: above 0, at most 1")
    return math.ceil(Fraction(repr(float(ratio))) * num_entries)


def keep_largest(gradients_NP: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """`(indices_NM, values_NM)`: each row's M = ceil(ratio * P) entries of largest magnitude.

    Indices (int64) ascend along each row; values keep the gradients' dtype and sign. Of entries that tie at the
    threshold the first are kept, so a row's result depends neither on its batch nor on the device. NaN counts as the
    largest magnitude: it is kept, and the caller sees it.

    Raises ValueError for a ratio outside (0, 1], and for gradients that are not N x P with P >= 1.

    >>> keep_largest(torch.tensor([[0.1, -3.0, 2.0, 0.5]]), ratio=0.5)
    (tensor([[1, 2]]), tensor([[-3.,  2.]]))
    """
    if gradients_NP.ndim != 2 or gradients_NP.shape[1] == 0:
        raise ValueError(f"gradients: got shape {tuple(gradients_NP.shape)}, allowed: N x P with P >= 1")
    kept = num_kept(gradients_NP.shape[1], ratio)
    indices_NM = torch.empty((len(gradients_NP), kept), dtype=torch.int64, device=gradients_NP.device)
    for row, gradient_P in enumerate(gradients_NP):
        indices_NM[row] = _largest(gradient_P, kept)
    return indices_NM, gradients_NP.gather(1, indices_NM)


def _largest(gradient_P: Tensor, kept: int) -> Tensor:
    """The indices (M) of the kept entries, ascending."""
    candidates_C = _not_below(gradient_P, _lower_bound(gradient_P, kept))
    if len(candidates_C) < kept:  # the sample's bound was too high
        candidates_C = torch.arange(len(gradient_P), device=gradient_P.device)
    magnitude_C = gradient_P.index_select(0, candidates_C).abs()
    magnitude_C.masked_fill_(magnitude_C.isnan(), math.inf)
    surplus = len(candidates_C) - kept
    if surplus == 0:
        return candidates_C
    # topk chooses among ties by device and shape, so only its threshold is used.
    threshold = _ascending(magnitude_C, surplus)
    keep_C = magnitude_C >= threshold
    places = _places(keep_C)
    if (ties := len(places) - kept) > 0:
        keep_C[_places(magnitude_C == threshold)[-ties:]] = False
        places = _places(keep_C)
    return candidates_C.index_select(0, places)


def _lower_bound(gradient_P: Tensor, kept: int) -> Tensor:
    """A magnitude that is almost surely not above the last kept one, estimated from a sample of the entries."""
    # An odd stride visits the rows and columns of a layer, whose sizes are even, alike.
    sampled = gradient_P[:: max(1, len(gradient_P) // _SAMPLED) | 1].abs()
    share, count = kept / len(gradient_P), len(sampled)
    rank = math.ceil(share * count + _DEVIATIONS * math.sqrt(count * share * (1.0 - share))) + 1
    return _ascending(sampled, count - min(rank, count))


def _not_below(gradient_P: Tensor, bound: Tensor) -> Tensor:
    """The indices of entries whose magnitude is not below `bound`, ascending. NaN is not below any bound."""
    if gradient_P.device.type != "cpu":
        return _places(~(gradient_P.abs() < bound))
    pieces = [
        _places(~(gradient_P[start : start + _PIECE].abs() < bound)) + start  # temporaries that stay in the cache
        for start in range(0, len(gradient_P), _PIECE)
    ]
    return torch.cat(pieces)


def _ascending(values: Tensor, place: int) -> Tensor:
    """The value at `place`, counted from 0, in ascending order. NaN comes last."""
    if values.device.type == "cpu":  # numpy's selection is several times as fast as topk
        return torch.from_numpy(np.partition(values.float().numpy(), place)[place : place + 1])[0].to(values.dtype)
    return values.topk(place + 1, largest=False, sorted=False).values.amax()


def _places(mask: Tensor) -> Tensor:
    """The indices where the mask is set, ascending."""
    if mask.device.type == "cpu":  # numpy counts sparse masks several times faster
        return torch.from_numpy(mask.numpy().nonzero()[0])
    return mask.nonzero().squeeze(1)
