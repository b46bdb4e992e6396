"""The training samples as the features need them: as tokens, or as text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import xxhash
from numpy.typing import NDArray

from ...artifacts.files import digest
from ...artifacts.samples import codes, column, places, samples_digest, texts
from ...stages.batching import is_tokens
from ...text import beginning, one_line
from ...training.collator import COLUMNS, KEY_COLUMN, SOURCE_COLUMN
from ..data.source import MEDIA, DataSource
from . import proxy

MAX_TEXT = 400  # characters of a typical sample's text
EDGE = 1 << 16  # bytes read at either end of a file for its digest, which is all of most pictures


class TokenisedSamples:
    """The training samples in the host's order, with the columns of their tags."""

    def __init__(self, dataset: Any, tags: pa.Table, tokenizer: Any) -> None:
        self.dataset = dataset
        self.tokenizer = tokenizer
        self.keys = texts(tags[KEY_COLUMN])
        self.sources = texts(tags[SOURCE_COLUMN])

    def text(self, index: int) -> str:
        """A sample's text, cut to a readable length."""
        tokens = self.dataset[index][views_of(self.dataset)[0]]
        return beginning(one_line(self.tokenizer.decode(tokens, skip_special_tokens=True)), MAX_TEXT)

    def lengths(self) -> list[int]:
        """`num_tokens` of each sample, without Python lists of the tokens."""
        lengths_VN = view_lengths(self.dataset)
        return (lengths_VN.max(axis=0) * len(lengths_VN)).tolist()  # type: ignore[no-any-return]

    def identity(self) -> dict[str, str]:
        """Digests that change with any sample's content, tokens or labels, and with their order."""
        return {"samples": samples_digest(self.sources, self.keys), "tokens": tokens_digest(self.dataset)}

    def media_digest(self) -> str | None:
        """A digest of the files of pictures, videos and sounds, which keys only name; None if no row has any."""
        columns = [name for name in MEDIA if name in self.dataset.column_names]
        batches = self.dataset.with_format("arrow").select_columns(columns).iter(batch_size=1_000)
        found, paths = False, set()
        for values in (_values(batch[name]) for batch in batches for name in columns):
            found |= len(values) > values.null_count
            paths.update(_paths(values))
        marks = (mark for path in sorted(paths) for mark in proxy.marks_of(Path(path), EDGE))
        return digest(marks) if found else None


def views_of(rows: Any) -> list[str]:
    """The columns of a tokenised data set that hold tokens: one, or two in `dpo`, `rm` and `kto`."""
    return [name for name in rows.column_names if is_tokens(name)]


def view_lengths(rows: Any) -> NDArray[np.int64]:
    """The number of tokens in each view of each row, shape V x N, without Python lists of the tokens."""
    views, found = views_of(rows), []
    for batch in rows.select_columns(views).with_format("arrow").iter(batch_size=10_000):
        found.append([pc.list_value_length(batch[view]).to_numpy() for view in views])
    return np.concatenate(found, axis=1).astype(np.int64)


def tokens_digest(rows: Any) -> str:
    """32 hex digits that change with any number in the rows of a tokenised data set: tokens, labels, masks, answers.

    Any host option that changes these numbers changes the digest. Media count by their positions alone.
    """
    names = sorted(name for name in rows.column_names if name not in (*COLUMNS, *MEDIA))
    hashed = xxhash.xxh3_128(" ".join(names).encode())
    for batch in rows.select_columns(names).with_format("arrow").iter(batch_size=10_000):
        for name in names:
            values = batch[name].combine_chunks()
            while pa.types.is_list(values.type) or pa.types.is_large_list(values.type):
                hashed.update(_bytes(pc.list_value_length(values)))
                values = pc.list_flatten(values)
            hashed.update(_bytes(values))
    return hashed.hexdigest()


def _bytes(numbers_N: pa.Array) -> memoryview:
    """Integers as four bytes each. The host stores the same column in four or in eight bytes, from run to run."""
    numbers = pc.fill_null(numbers_N.cast(pa.int32()), -1).to_numpy(zero_copy_only=False)
    return memoryview(np.ascontiguousarray(numbers)).cast("B")


def _values(lists: Any) -> Any:
    """The values of a column of lists, nested lists flattened, such as the pictures of a video."""
    while pa.types.is_list(lists.type) or pa.types.is_large_list(lists.type):
        lists = pc.list_flatten(lists)
    return lists


def _paths(values: Any) -> list[str]:
    """Each path once, without those of files that the data set holds itself."""
    if pa.types.is_struct(values.type):
        values = pc.if_else(pc.is_valid(pc.struct_field(values, "bytes")), None, pc.struct_field(values, "path"))
    return values.unique().drop_null().to_pylist() if pa.types.is_string(values.type) else []


class SampleTexts:
    """Prompt and response of each training sample, whole and without a template, read on demand.

    `aligned` has each source's examples as the host loaded them. The samples are the examples that the host kept.
    """

    def __init__(self, aligned: Mapping[str, Any], samples: TokenisedSamples) -> None:
        self._sources = list(aligned)
        self._aligned = [part.select_columns(["_prompt", "_response"]) for part in aligned.values()]
        self._source_N = codes(samples.sources, self._sources)
        self._row_N = np.zeros(len(self._source_N), dtype=np.int64)
        for i, part in enumerate(aligned.values()):
            mine = np.flatnonzero(self._source_N == i)
            self._row_N[mine] = places(samples.keys.take(pa.array(mine)), texts(column(part, KEY_COLUMN)))

    def __len__(self) -> int:
        return len(self._row_N)

    def __getitem__(self, index: int) -> str:
        example = self._aligned[self._source_N[index]][int(self._row_N[index])]
        return "\n".join(str(message["content"]) for part in example.values() for message in part)


def has_other_tokens(source: DataSource) -> bool:
    """Whether features are the gradients of a proxy with a tokenizer of its own."""
    gradients = source.settings.config.dids_cluster_features == "gradient"
    return gradients and not proxy.is_trained_model(source.settings, source.model_args)


def proxy_tokens(source: DataSource) -> tuple[Any, dict[str, Any]]:
    """(template, tokenizer and processor) of the features' model."""
    if has_other_tokens(source):
        return proxy.load_proxy_tokenizer(source.settings, source.model_args, source.data_args)
    return source.template, {"tokenizer": source.tokenizer, "processor": source.processor}


def proxy_samples(source: DataSource, rows: TokenisedSamples | None = None) -> TokenisedSamples:
    """The training samples as the features' model reads them: the training `rows` themselves, if they are the same."""
    if rows is not None and not has_other_tokens(source):
        return rows
    template, module = proxy_tokens(source)
    loaded, tags = source.unpacked(template, **module)
    return TokenisedSamples(loaded["train_dataset"], tags, module["tokenizer"])
