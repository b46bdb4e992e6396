"""How long the samples of a domain are, for `dids_share_of: tokens`.

Tokens are all that the model reads of a sample: prompt and answer, after `cutoff_len`; of a pair both answers. That is
what a budget of tokens counts, and of texts to continue it is what the loss is of.

Shapes: `N` samples, `D` domains.
"""

from typing import Any

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from ...stages.batching import is_tokens
from ...training.streams import StreamedRows

FROM_A_STREAM = 512  # samples: where a sample's length differs from the mean by as much as that, within 4 percent


def mean_tokens(rows: Any, domains_N: NDArray[np.int64], num_domains: int) -> NDArray[np.float64]:
    """Mean tokens of a training row of each domain, shape D; of a stream, of the first that it gives."""
    if isinstance(rows, StreamedRows):
        few = (rows.some(domain, FROM_A_STREAM, draw=0) for domain in range(num_domains))
        return np.array([np.mean([_tokens(row) for row in some]) for some in few])
    tokens_N = _tokens_of_each(rows)
    return np.bincount(domains_N, tokens_N, num_domains) / np.bincount(domains_N, minlength=num_domains)


def _tokens(row: dict[str, Any]) -> int:
    return sum(len(value) for name, value in row.items() if is_tokens(name))


def _tokens_of_each(rows: Any) -> NDArray[np.int64]:
    """Without making Python lists of the tokens."""
    views = [name for name in rows.column_names if is_tokens(name)]
    batches = rows.with_format("arrow").select_columns(views).iter(batch_size=10_000)
    return np.concatenate(
        [sum(pc.list_value_length(batch[view]).to_numpy() for view in views) for batch in batches]
    ).astype(np.int64)
