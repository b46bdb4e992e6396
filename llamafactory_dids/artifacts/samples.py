"""The tags of many samples, as arrow arrays: the source, and the content key of the text.

A million samples are a few arrays here, not two million Python strings, and a question is asked of all of them at once.
Shapes: `N` samples, `M` samples that are looked up.
"""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..errors import DidsError
from .files import digest, write_bytes

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


def write_table(path: Path, table: pa.Table) -> str:
    """Write a parquet file, all or nothing; its digest, which a JSON file beside it keeps."""
    parquet = pa.BufferOutputStream()
    pq.write_table(table, parquet)
    data = memoryview(parquet.getvalue())
    write_bytes(path, data)
    return digest([data])


def read_table(path: Path, kept: str | None, columns: Sequence[str], what: str) -> pa.Table:
    """Read a parquet file that has these columns of strings, and was written with the digest that was kept, if one was.

    Raises DidsError, with the file's name, where it is missing, broken, or not `what` it should be.
    """
    try:
        data = path.read_bytes()
        if kept is not None and kept != digest([data]):
            raise DidsError(f"{path}: changed since it was written; allowed: {what}, as it was")
        table = pq.ParquetFile(pa.BufferReader(data)).read()
        for name in columns:
            if name not in table.column_names:
                raise DidsError(f"{path}: no column {name!r}; allowed: {what} with {', '.join(columns)}")
            values_N = texts(table[name])
            values_N.validate(full=True)
            if values_N.null_count:
                raise DidsError(f"{path}: a row has no {name}; allowed: {what} with {', '.join(columns)} in each")
            table = table.set_column(table.column_names.index(name), name, values_N)
    except FileNotFoundError:
        raise DidsError(f"{path}: no such file; allowed: {what}") from None
    except DidsError:
        raise
    except (OSError, ValueError, pa.ArrowException) as error:
        raise DidsError(f"{path}: not a whole parquet file ({error})") from None
    return table


def _text(value: str) -> pa.LargeStringScalar:
    return pa.scalar(value, pa.large_string())
