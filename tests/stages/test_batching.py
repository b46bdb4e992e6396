import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from llamafactory_dids.stages.batching import length_batches, pad_collate, to_device


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 50), max_size=40), st.integers(1, 8), st.integers(1, 120))
def test_every_sample_is_in_one_batch_and_the_limits_hold(lengths, max_samples, max_tokens):
    batches = length_batches(lengths, max_samples, max_tokens)
    assert sorted(i for batch in batches for i in batch) == list(range(len(lengths)))
    for batch in batches:
        assert 1 <= len(batch) <= max_samples
        padded = len(batch) * max(lengths[i] for i in batch)
        assert padded <= max_tokens or len(batch) == 1, (batch, padded)


def test_samples_of_like_length_come_together():
    assert length_batches([1, 9, 2, 8, 1, 9], 2, 1000) == [[1, 5], [3, 2], [0, 4]]


def test_nothing_makes_no_batches():
    assert length_batches([], 4, 100) == []


def test_padding_is_masked_and_not_learned():
    batch = pad_collate(9)([{"input_ids": [1, 2, 3], "labels": [-100, 2, 3]}, {"input_ids": [4]}])
    assert batch["input_ids"].tolist() == [[1, 2, 3], [4, 9, 9]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch["labels"].tolist() == [[-100, 2, 3], [4, -100, -100]]


@pytest.mark.parametrize("width", [1, 5])
def test_tokens_are_integers(width):
    assert pad_collate(0)([{"input_ids": [3] * width}])["input_ids"].dtype == torch.long


def test_tensors_of_a_batch_within_a_batch_are_moved_too():
    batch = {"ids": torch.zeros(2), "data": {"pixels": [torch.zeros(1), (torch.zeros(1), "as it is")]}}
    moved = to_device(batch, torch.device("meta"))
    assert moved["ids"].is_meta and moved["data"]["pixels"][0].is_meta and moved["data"]["pixels"][1][0].is_meta
    assert moved["data"]["pixels"][1][1] == "as it is"
