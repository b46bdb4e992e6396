"""Content keys: of arrow columns the same as of examples one by one, whatever texts are in them."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from llamafactory_dids.integration.data.tags import ALIGNED, Tagger, are_texts, example_key
from llamafactory_dids.training.collator import KEY_COLUMN, SOURCE_COLUMN

TEXT = st.text(st.sampled_from('ab"\\/\n\r\t\b\f\0\x1f\x7f é漢\u2028😀,: {}[]'), max_size=6)
MAYBE_TEXT = st.none() | TEXT
MESSAGE = st.none() | st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": MAYBE_TEXT})
MESSAGES = st.none() | st.lists(MESSAGE, max_size=3)
PATHS = st.none() | st.lists(MAYBE_TEXT, max_size=2)
EXAMPLE = st.fixed_dictionaries(
    {
        "_prompt": MESSAGES,
        "_response": MESSAGES,
        "_system": MAYBE_TEXT,
        "_tools": MAYBE_TEXT,
        "_images": PATHS,
        "_videos": st.none() | st.lists(PATHS, max_size=2),
        "_audios": st.none(),
    }
)


def schema(text: pa.DataType, many) -> pa.Schema:
    messages = many(pa.struct({"role": text, "content": text}))
    kinds = (messages, messages, text, text, many(text), many(many(text)), pa.null())
    return pa.schema(dict(zip(ALIGNED, kinds, strict=True)))


@settings(max_examples=60, deadline=None)
@given(st.lists(EXAMPLE, min_size=1, max_size=6), st.booleans(), st.integers(0, 5))
def test_a_key_of_columns_is_that_of_the_example(examples, are_large, start):
    kinds = schema(*((pa.large_string(), pa.large_list) if are_large else (pa.string(), pa.list_)))
    table = pa.Table.from_pylist(examples, kinds)
    assert are_texts(table.schema)
    tags = Tagger("source").of_columns(pa.concat_tables([table, table]).slice(start))
    assert tags[KEY_COLUMN].to_pylist() == [example_key(example) for example in [*examples, *examples][start:]]
    assert tags[SOURCE_COLUMN].to_pylist() == ["source"] * len(tags)


def test_a_key_is_the_one_that_maps_hold_already():
    example = {
        "_prompt": [{"role": "user", "content": 'Say "hé",\n\tplease: \\'}],
        "_response": [{"role": "assistant", "content": "hé"}],
        "_system": "",
        "_tools": None,
        "_images": ["a/b.png"],
    }
    tags = Tagger("source").of_columns(pa.Table.from_pylist([example]))
    assert tags[KEY_COLUMN].to_pylist() == [example_key(example)] == ["9456da09801a56e74552123849daf4d5"]


@pytest.mark.parametrize("embedded", [b"\0\1", 1.5, {"bytes": b"\0", "path": None}])
def test_what_is_embedded_is_not_taken_for_text(embedded):
    assert not are_texts(pa.Table.from_pylist([{"_prompt": None, "_images": [embedded]}]).schema)


def test_a_picture_of_the_data_set_has_a_key_of_its_pixels():
    """The columns hold a file's bytes; keys are of what the host gives a processor."""
    from datasets import Dataset, Features, Value
    from datasets import Image as Picture

    from llamafactory_dids.integration.data.loading import tagged

    features = Features({"_system": Value("string"), "_images": [Picture()]})
    pictures = [Image.new("RGB", (4, 4), color) for color in ("black", "white", "black")]
    rows = Dataset.from_dict({"_system": ["a"] * 3, "_images": [[one] for one in pictures]}, features)

    class Options:
        preprocessing_batch_size, preprocessing_num_workers, overwrite_cache, local_process_index = 2, None, True, 0

    keys = tagged(rows, "album", Options, Options)[KEY_COLUMN]
    assert list(keys) == [example_key({"_system": "a", "_images": [one]}) for one in pictures]
    assert keys[0] == keys[2] != keys[1]
