"""The mean number of tokens in a domain's samples, for `dids_share_of: tokens`.

Tokens are all that the model reads of a sample after `cutoff_len`: prompt and answer, and both answers of a pair. A
budget of tokens counts these. In pretraining, the loss is over these too.

Shapes: `N` samples, `D` domains.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...stages.batching import is_tokens
from ...training.streams import StreamedRows
from ..domains.samples import view_lengths

FROM_A_STREAM = 512  # samples: the mean is within 4 percent if lengths deviate by as much as their mean


def mean_tokens(rows: Any, domains_N: NDArray[np.int64], num_domains: int) -> NDArray[np.float64]:
    """Mean number of tokens in a domain's training rows, shape D. For streams, the mean of their first rows."""
    if isinstance(rows, StreamedRows):
        few = (rows.some(domain, FROM_A_STREAM, draw=0) for domain in range(num_domains))
        return np.array([np.mean([_tokens(row) for row in some]) for some in few])
    tokens_N = view_lengths(rows).sum(axis=0)
    return np.bincount(domains_N, tokens_N, num_domains) / np.bincount(domains_N, minlength=num_domains)


def _tokens(row: dict[str, Any]) -> int:
    return sum(len(value) for name, value in row.items() if is_tokens(name))
