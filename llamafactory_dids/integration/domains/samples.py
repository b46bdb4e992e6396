"""The training samples as what makes the domains sees them: their tokens, or their text."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...artifacts.files import digest, samples_digest
from ...stages.batching import is_tokens
from ...text import beginning, one_line
from ...training.collator import KEY_COLUMN, SOURCE_COLUMN
from ..data.source import DataSource
from . import proxy

MAX_TEXT = 400  # characters of a typical sample's text
MEDIA = ("images", "videos", "audios")  # the columns of the host's rows
EDGE = 1 << 16  # bytes at either end of a file that are read for its digest: most pictures whole


class TokenisedSamples:
    """The training samples one by one, in the order that the host gives them, with their tags."""

    def __init__(self, dataset: Any, tokenizer: Any) -> None:
        self.dataset = dataset
        self.tokenizer = tokenizer
        self.keys: list[str] = list(dataset[KEY_COLUMN])
        self.sources: list[str] = list(dataset[SOURCE_COLUMN])
        self._views = [column for column in dataset.column_names if is_tokens(column)]

    def text(self, index: int) -> str:
        """A sample's text, cut to a readable length."""
        tokens = self.dataset[index][self._views[0]]
        return beginning(one_line(self.tokenizer.decode(tokens, skip_special_tokens=True)), MAX_TEXT)

    def lengths(self) -> list[int]:
        """As `num_tokens` of each sample, without making Python lists of the tokens."""
        batches = self.dataset.with_format("arrow").select_columns(self._views).iter(batch_size=10_000)
        longest = [
            n
            for batch in batches
            for n in pc.max_element_wise(*(pc.list_value_length(batch[view]) for view in self._views)).to_pylist()
        ]
        return [n * len(self._views) for n in longest]

    def digest(self) -> str:
        """Changes with any sample, or their order."""
        return samples_digest(self.sources, self.keys)

    def media_digest(self) -> str | None:
        """Changes with the files of pictures, videos and sounds, which keys name alone; None where rows have none."""
        columns = [column for column in MEDIA if column in self.dataset.column_names]
        batches = self.dataset.with_format("arrow").select_columns(columns).iter(batch_size=1_000)
        found, paths = False, set()
        for values in (_values(batch[column]) for batch in batches for column in columns):
            found |= len(values) > values.null_count
            paths.update(_paths(values))
        marks = (mark for path in sorted(paths) for mark in proxy.marks_of(Path(path), EDGE))
        return digest(marks) if found else None


def _values(column: Any) -> Any:
    """What the lists of a column hold, and the lists in them: the pictures of a video."""
    while pa.types.is_list(column.type) or pa.types.is_large_list(column.type):
        column = pc.list_flatten(column)
    return column


def _paths(values: Any) -> list[str]:
    """Each path once, without those of what the data set itself holds."""
    if pa.types.is_struct(values.type):
        values = pc.if_else(pc.is_valid(pc.struct_field(values, "bytes")), None, pc.struct_field(values, "path"))
    return values.unique().drop_null().to_pylist() if pa.types.is_string(values.type) else []


class SampleTexts:
    """Prompt and response of each training sample, whole and without a template, read when asked for.

    `aligned` has the examples of each source as the host loaded them; the samples are those that it kept.
    """

    def __init__(self, aligned: Mapping[str, Any], samples: TokenisedSamples) -> None:
        rows = {source: {key: i for i, key in enumerate(part[KEY_COLUMN])} for source, part in aligned.items()}
        self._aligned = {source: part.select_columns(["_prompt", "_response"]) for source, part in aligned.items()}
        self._places = [(s, rows[s][key]) for s, key in zip(samples.sources, samples.keys, strict=True)]

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> str:
        source, row = self._places[index]
        example = self._aligned[source][row]
        return "\n".join(str(message["content"]) for part in example.values() for message in part)


def has_other_tokens(source: DataSource) -> bool:
    """Whether features are the gradients of a proxy with a tokenizer of its own."""
    gradients = source.settings.config.dids_cluster_features == "gradient"
    return gradients and not proxy.is_trained_model(source.settings, source.model_args)


def proxy_tokens(source: DataSource) -> tuple[Any, dict[str, Any]]:
    """(template, tokenizer and processor) of the model that features are made with."""
    if has_other_tokens(source):
        return proxy.load_proxy_tokenizer(source.settings, source.model_args, source.data_args)
    return source.template, {"tokenizer": source.tokenizer, "processor": source.processor}


def proxy_samples(source: DataSource) -> TokenisedSamples:
    """The training samples one by one, as the model that features are made with reads them."""
    template, module = proxy_tokens(source)
    return TokenisedSamples(source.unpacked(template, **module), module["tokenizer"])
