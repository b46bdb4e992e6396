import hashlib

import datasets
import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from llamafactory_dids.artifacts.samples import UNKNOWN, codes, column, pairs, places, samples_digest, texts

WORDS = st.lists(st.text("aß散\n\0", max_size=3), max_size=8)


@given(WORDS, WORDS)
def test_a_string_is_found_at_its_last_place(wanted, among):
    expected = [len(among) - 1 - among[::-1].index(word) if word in among else UNKNOWN for word in wanted]
    assert places(texts(wanted), texts(among)).tolist() == expected


@given(st.lists(st.tuples(st.text("ab散", max_size=3), st.text("01", max_size=3)), max_size=8))
def test_the_digest_is_of_the_bytes_one_sample_after_the_other(samples):
    text = "".join(f"{source}\0{key}\n" for source, key in samples)
    sources, keys = [source for source, _ in samples], [key for _, key in samples]
    assert samples_digest(sources, keys) == hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def test_tags_are_of_one_kind_wherever_they_come_from():
    words = ["a", "b", "a"]
    chunks = pa.chunked_array([pa.array(words[:1]), pa.array(words[1:])])
    of_dataset = column(datasets.Dataset.from_dict({"x": ["c", *words]}).select([1, 2, 3]), "x")
    for given_as in (words, chunks, pa.array(words).dictionary_encode(), of_dataset):
        assert texts(given_as).equals(pa.array(words, pa.large_string()))


def test_the_same_key_of_two_sources_makes_two_pairs_and_no_cut_between_them_is_moved():
    assert len(set(pairs(texts(["a", "ab", "a"]), texts(["bc", "c", "c"])).to_pylist())) == 3


def test_a_string_that_is_none_of_the_names_is_told():
    assert np.array_equal(codes(texts(["b", "x", "a"]), ["a", "b"]), [1, UNKNOWN, 0])
