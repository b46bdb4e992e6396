"""The mean number of tokens in a domain's samples, for `dids_share_of: tokens`.

Tokens are all that the model reads of a sample after `cutoff_len`: prompt and answer, and both answers of a pair. A
budget of tokens counts these. In pretraining, the loss is over these too.

Shapes: `N` samples, `D` domains.
"""

from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...stages.batching import is_tokens
from ...training.streams import StreamedRows

FROM_A_STREAM = 512  # samples: the mean is within 4 percent if lengths deviate by as much as their mean


def mean_tokens(rows: Any, domains_N: NDArray[np.int64], num_domains: int) -> NDArray[np.float64]:
    """Mean number of tokens in a domain's training rows, shape D. For streams, the mean of their first rows."""
    if isinstance(rows, StreamedRows):
        few = (rows.some(domain, FROM_A_STREAM, draw=0) for domain in range(num_domains))
        return np.array([np.mean([_tokens(row) for row in some]) for some in few])
    tokens_N = _tokens_of_each(rows)
    return np.bincount(domains_N, tokens_N, num_domains) / np.bincount(domains_N, minlength=num_domains)


def _tokens(row: dict[str, Any]) -> int:
    return sum(len(value) for name, value in row.items() if is_tokens(name))


def _tokens_of_each(rows: Any) -> NDArray[np.int64]:
    """The number of tokens in each row (N), without Python lists of the tokens."""
    views = [name for name in rows.column_names if is_tokens(name)]
    batches = rows.with_format("arrow").select_columns(views).iter(batch_size=10_000)
    return np.concatenate(
        [sum(pc.list_value_length(batch[view]).to_numpy() for view in views) for batch in batches]
    ).astype(np.int64)
