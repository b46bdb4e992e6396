"""A sample's tags: its source, which is the name of its data set, and its content key.

The key is a hash of the aligned example before tokenising. It does not change with dropped rows, `max_samples`,
reordering or another tokenizer. A domain map made with a proxy's tokenizer therefore fits the training data, and still
fits when the data is shuffled or cut.

For a picture, video or sound the key covers the data set's own value: its path, or, if embedded, its pixels, numbers or
bytes. It does not cover the content of the file at a path, so that a million files need not be read to find their
samples again. The digest of the features covers this content (`domains/samples.py`).
"""

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from PIL import Image

from ...artifacts.files import digest
from ...errors import DidsError
from ...training.collator import KEY_COLUMN, SOURCE_COLUMN
from . import canonical

TAGS = (KEY_COLUMN, SOURCE_COLUMN)

ALIGNED = ("_prompt", "_response", "_system", "_tools", "_images", "_videos", "_audios")


def example_key(example: dict[str, Any]) -> str:
    """32 hex digits of the aligned example's content.

    Raises TypeError for a value without lasting content, such as a decoder.
    """
    content = {name: example[name] for name in ALIGNED if example.get(name)}
    return digest([_JSON.encode(content).encode()], size=16)


def are_texts(schema: pa.Schema) -> bool:
    """Whether aligned examples of this schema hold only texts. Paths of media are texts, embedded media are not."""
    return all(canonical.can_encode(schema.field(name).type) for name in ALIGNED if name in schema.names)


def content_order(keys: list[str], seed: int) -> list[int]:
    """Indices in a random order that depends on the samples' content and the seed, not on their positions."""
    return sorted(range(len(keys)), key=lambda i: digest([f"{seed}:{keys[i]}".encode()]))


def _digest(value: Any) -> str:
    """A digest for values that JSON does not have. A picture's covers its pixels, as the host's processor gets them."""
    if isinstance(value, Image.Image):
        return digest([f"{value.size}".encode(), value.convert("RGB").tobytes()], size=16)
    if isinstance(value, np.ndarray) and not value.dtype.hasobject:
        return digest([f"{value.dtype}{value.shape}".encode(), value.tobytes()], size=16)
    if isinstance(value, bytes):
        return digest([value], size=16)
    raise TypeError(f"a value of type {type(value).__name__}")


_JSON = json.JSONEncoder(sort_keys=True, ensure_ascii=False, default=_digest)


@dataclass(frozen=True)
class Tagger:
    """For `Dataset.map(batched=True)`: each example's content key and the name of its source.

    For texts alone, `of_columns` gives the same keys some three times as fast.
    """

    source: str

    def of_columns(self, examples: pa.Table) -> pa.Table:
        """The tags of examples in arrow columns for which `are_texts` holds."""
        columns = {name: examples[name].combine_chunks() for name in ALIGNED if name in examples.column_names}
        contents = canonical.objects(columns).cast(pa.large_binary()).to_pylist()
        keys = [digest([content], size=16) for content in contents]
        return pa.table({KEY_COLUMN: keys, SOURCE_COLUMN: [self.source] * len(keys)})

    def __call__(self, examples: dict[str, list[Any]]) -> dict[str, list[Any]]:
        columns = {name: examples[name] for name in ALIGNED if name in examples}
        rows = [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]
        try:
            keys = [example_key(row) for row in rows]
        except TypeError as error:
            raise DidsError(
                f"dataset: {self.source!r} has {error}, allowed: texts, and pictures, videos and sounds as paths, "
                "bytes, PIL images or arrays of numbers"
            ) from None
        return {KEY_COLUMN: keys, SOURCE_COLUMN: [self.source] * len(rows)}


def lacking(what: str, source: str, key: str) -> DidsError:
    """The error for a domain map that lacks training samples: `what` counts them, source and key are the first's."""
    return DidsError(
        f"dids_domains: the map lacks {what} (the first: {key} of {source!r}); allowed: a map made from this data"
    )
