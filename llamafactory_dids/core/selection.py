"""The largest entries of each gradient by magnitude (section 5.4's "top 10%"; method.md, section 1).

Cost: one `topk` and three passes over the batch, with temporaries the size of the batch. The alternative, a
threshold estimated on a sample of the entries, is cheaper and inexact; this one always keeps exactly the same
entries.

Shapes: `N` samples, `P` tracked parameters, `M` kept entries.
"""

from __future__ import annotations

import math
from fractions import Fraction

from torch import Tensor


def num_kept(num_entries: int, ratio: float) -> int:
    """ceil(ratio * num_entries), exact in the decimal that `ratio` prints as: 0.07 of 100 is 7, not 8."""
    if not 0.0 < ratio <= 1.0:
        raise ValueError(f"dids_topk_ratio: got {ratio!r}, allowed: above 0, at most 1")
    return math.ceil(Fraction(repr(float(ratio))) * num_entries)


def keep_largest(gradients_NP: Tensor, ratio: float) -> tuple[Tensor, Tensor]:
    """Returns `(indices_NM, values_NM)`: each row's M = ceil(ratio * P) entries of largest magnitude.

    Indices (int64) ascend along each row; values keep the gradients' dtype and sign. Of entries that tie at
    the threshold the first ones are kept, so a row's result depends neither on its batch nor on the device.
    An entry that is not a number counts as the largest: it is kept, where the caller will see it.

    Raises ValueError for a ratio outside (0, 1] and for gradients that are not N x P with P >= 1.
    """
    if gradients_NP.ndim != 2 or gradients_NP.shape[1] == 0:
        raise ValueError(f"gradients: got shape {tuple(gradients_NP.shape)}, allowed: N x P with P >= 1")
    kept = num_kept(gradients_NP.shape[1], ratio)
    magnitude_NP = gradients_NP.abs()
    magnitude_NP.masked_fill_(magnitude_NP.isnan(), math.inf)
    # topk's own choice among ties differs between devices and shapes, so only its threshold is used.
    threshold_N1 = magnitude_NP.topk(kept, dim=1, sorted=False).values.amin(dim=1, keepdim=True)
    keep_NP = magnitude_NP >= threshold_N1
    for row in (keep_NP.sum(dim=1) > kept).nonzero().flatten().tolist():
        _drop_last_ties(keep_NP[row], magnitude_NP[row] == threshold_N1[row], kept)
    indices_NM = keep_NP.nonzero()[:, 1].view(-1, kept)
    return indices_NM, gradients_NP.gather(1, indices_NM)


def _drop_last_ties(keep_P: Tensor, tied_P: Tensor, kept: int) -> None:
    """Unmark entries at the threshold, from the last, until `kept` are left."""
    surplus = int(keep_P.sum()) - kept
    keep_P[tied_P.nonzero().flatten()[-surplus:]] = False
