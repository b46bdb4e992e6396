"""The tags of many samples, as arrow arrays: the source, and the content key of the text.

A million samples are a few arrays here, not two million Python strings, and a question is asked of all of them at once.
Shapes: `N` samples, `M` samples that are looked up.
"""

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from .files import digest

Texts: TypeAlias = Any  # a pa.LargeStringArray
UNKNOWN = -1  # index of a sample that is not found


def texts(values: Any) -> Texts:
    """Strings of any iterable, arrow arrays included, as one arrow array."""
    if isinstance(values, pa.ChunkedArray):
        values = values.combine_chunks()
    if isinstance(values, pa.Array):
        return values.cast(pa.large_string())
    return pa.array(list(values), pa.large_string())


def column(dataset: Any, name: str) -> pa.ChunkedArray:
    """A column of a `datasets` data set as an arrow array, without a Python object for each row."""
    return dataset.select_columns([name]).with_format("arrow")[:][name]


def pairs(sources_N: Texts, keys_N: Texts) -> Texts:
    """Source and content key of each sample, joined in one string."""
    return pc.binary_join_element_wise(sources_N, keys_N, _text("\0"))


def places(wanted_M: Texts, among_N: Texts) -> NDArray[np.int64]:
    """Index of each wanted string among the others, shape M: the last of several, UNKNOWN if there is none."""
    found_M = pc.index_in(wanted_M, value_set=among_N[::-1])
    from_end_M: NDArray[np.int64] = pc.fill_null(found_M, len(among_N)).to_numpy(zero_copy_only=False).astype(np.int64)
    return len(among_N) - 1 - from_end_M  # UNKNOWN for what is not found


def codes(values_N: Texts, names: Sequence[str]) -> NDArray[np.int64]:
    """Index of each string among the names, UNKNOWN if it is no name; shape N."""
    return places(values_N, texts(names))


def samples_digest(sources_N: Iterable[str], keys_N: Iterable[str]) -> str:
    """16 hex digits that change with any sample's source or content key, or with their order."""
    joined_N = pairs(texts(sources_N), texts(keys_N))
    return digest([content(pc.binary_join_element_wise(joined_N, _text(""), _text("\n")))])


def lines(values_N: Texts) -> memoryview:
    """The strings as UTF-8 bytes, with a line break before each."""
    return content(pc.binary_join_element_wise(_text(""), values_N, _text("\n")))


def content(values_N: Texts) -> memoryview:
    """The strings as UTF-8 bytes without a gap. The array must not be a slice of another."""
    length = pc.sum(pc.binary_length(values_N)).as_py() or 0
    return memoryview(values_N.buffers()[2] or b"")[:length]


def _text(value: str) -> pa.LargeStringScalar:
    return pa.scalar(value, pa.large_string())
