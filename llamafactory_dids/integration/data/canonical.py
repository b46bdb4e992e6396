"""Arrow columns as JSON, letter for letter like `json.dumps(value, sort_keys=True, ensure_ascii=False)`.

No Python object is made for each row: escapes are replaced in all texts at once, and texts are joined once for each
list. A value's JSON is made of parts: arrays with a text for each value, and texts that all values share.
"""

from json.encoder import encode_basestring
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

Texts: TypeAlias = Any  # a pa.LargeStringArray
Part: TypeAlias = Any  # Texts, or a str

# The backslash comes first, because the other escapes contain one.
ESCAPES = {mark: encode_basestring(mark)[1:-1] for mark in ("\\", '"', *map(chr, range(32)))}


def can_encode(kind: pa.DataType) -> bool:
    """Whether values of this type are texts, or lists and structs of texts."""
    if _is_list(kind):
        return can_encode(kind.value_type)
    if pa.types.is_struct(kind):
        return kind.num_fields > 0 and all(can_encode(kind.field(i).type) for i in range(kind.num_fields))
    return pa.types.is_null(kind) or _is_text(kind)


def objects(columns: dict[str, Any]) -> Texts:
    """For each row, the JSON object of its values by column. Nulls, empty texts and empty lists are left out.

    There must be at least one column, and `can_encode` must accept all types.
    """
    length = len(next(iter(columns.values())))
    found: list[Part] = [pa.repeat(_text("{"), length)]
    before = pa.repeat(False, length)  # whether the row's object has a pair already
    for name, values in sorted(columns.items()):
        kept = _holds_something(values)
        if pc.any(kept).as_py():
            comma = pc.if_else(before, _text(", "), _text(""))
            pair = [comma, f"{encode_basestring(name)}: ", *_parts(values)]
            found += pair if pc.all(kept).as_py() else [pc.if_else(kept, _joined(*pair), _text(""))]
            before = pc.or_(before, kept)
    return _joined(*found, "}")


def _parts(values: Any) -> list[Part]:
    """The parts of each value's JSON."""
    if pa.types.is_null(values.type):
        return [pa.repeat(_text("null"), len(values))]
    if _is_list(values.type):
        found = ["[", _joined_lists(values), "]"]
    elif pa.types.is_struct(values.type):
        found = _parts_of_structs(values)
    else:
        found = ['"', _escaped(values.cast(pa.large_string())), '"']
    return [pc.if_else(values.is_valid(), _joined(*found), _text("null"))] if values.null_count else found


def _parts_of_structs(structs: pa.StructArray) -> list[Part]:
    """The parts of each struct's fields, by name, nulls included."""
    fields = dict(zip((field.name for field in structs.type), structs.flatten(), strict=True))
    found: list[Part] = []
    for name, values in sorted(fields.items()):
        found += [", " if found else "{", f"{encode_basestring(name)}: ", *_parts(values)]
    return [*found, "}"]


def _joined_lists(lists: Any) -> Texts:
    """The JSON of each list's items, joined by commas; an empty text for a null."""
    ends = np.cumsum(pc.fill_null(pc.list_value_length(lists), 0).to_numpy(zero_copy_only=False))
    offsets = pa.array(np.concatenate([[0], ends]), pa.int32())
    return pc.binary_join(pa.ListArray.from_arrays(offsets, _joined(*_parts(pc.list_flatten(lists)))), _text(", "))


def _escaped(texts: Texts) -> Texts:
    """The texts with JSON's escapes."""
    content = _content(texts)
    controls = set(np.unique(content[content < 32]).tolist())
    for mark, escape in ESCAPES.items():
        if ord(mark) in controls or (mark in '\\"' and (content == ord(mark)).any()):
            texts = pc.replace_substring(texts, mark, escape)
    return texts


def _content(texts: Texts) -> NDArray[np.uint8]:
    """The bytes of all texts, joined."""
    _, offsets, content = texts.buffers()
    if len(texts) == 0 or content is None:
        return np.zeros(0, dtype=np.uint8)
    bounds = np.frombuffer(offsets, dtype=np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(content, dtype=np.uint8)[bounds[0] : bounds[-1]]


def _holds_something(values: Any) -> Any:
    if pa.types.is_null(values.type) or pa.types.is_struct(values.type):
        return values.is_valid()
    length = pc.list_value_length(values) if _is_list(values.type) else pc.binary_length(values)
    return pc.fill_null(pc.greater(length, 0), False)


def _joined(*parts: Part) -> Texts:
    """The parts of each value, joined. At least one part is an array."""
    return pc.binary_join_element_wise(*(_text(part) if isinstance(part, str) else part for part in parts), _text(""))


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)


def _text(value: str) -> pa.LargeStringScalar:
    return pa.scalar(value, pa.large_string())
