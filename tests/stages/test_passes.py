"""Batches that shrink where memory runs out: on one rank, and on ranks that take turns, each seen as a thread."""

import threading

import pytest
import torch

from llamafactory_dids.errors import DidsError
from llamafactory_dids.stages import ranks
from llamafactory_dids.stages.passes import Passes

LENGTHS = [3, 9, 4, 8, 7, 2, 6, 5, 1, 9]
CPU = torch.device("cpu")


class Memory:
    """Has room for so many tokens of a batch; notes what was tried."""

    def __init__(self, tokens, error=None):
        self.tokens, self.tried = tokens, []
        self.error = error or torch.OutOfMemoryError("CUDA out of memory")

    def compute(self, batch):
        self.tried.append(batch["places"])
        if len(batch["places"]) * max(LENGTHS[i] for i in batch["places"]) > self.tokens:
            raise self.error
        return sum(LENGTHS[i] for i in batch["places"])


def collate(places):
    return {"places": places}


def passes(together=False, **limits):
    limits = {"max_samples": 4, "max_tokens": 40, **limits}
    return Passes(
        "dids_tasks", "a smaller cutoff_len", limits["max_samples"], limits["max_tokens"], CPU, together=together
    )


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory"), RuntimeError("NPU out of memory.")])
@pytest.mark.parametrize("tokens", [9, 18, 27, 100])
def test_each_sample_is_computed_once_whatever_there_is_room_for(tokens, error):
    memory, found = Memory(tokens, error), []
    for places, total in passes().over(LENGTHS, collate, memory.compute):
        assert total == sum(LENGTHS[i] for i in places)
        found += places
    assert sorted(found) == list(range(len(LENGTHS)))


def test_what_was_too_large_is_not_tried_again():
    memory, mine = Memory(18), passes()
    list(mine.over(LENGTHS, collate, memory.compute))
    failed = [places for places in memory.tried if len(places) * max(LENGTHS[i] for i in places) > 18]
    assert len(failed) == 1
    before = len(memory.tried)
    list(mine.over(LENGTHS, collate, memory.compute))
    assert not any(len(places) * max(LENGTHS[i] for i in places) > 18 for places in memory.tried[before:])


def test_a_sample_that_does_not_fit_is_refused_with_its_length_and_what_would_help():
    with pytest.raises(DidsError, match=r"dids_tasks: one sample \(9 tokens long\) .* allowed: a smaller cutoff_len"):
        list(passes().over(LENGTHS, collate, Memory(8).compute))


def test_another_error_is_not_taken_for_too_little_memory():
    with pytest.raises(RuntimeError, match="shapes"):
        list(passes().over(LENGTHS, collate, Memory(8, RuntimeError("shapes do not match")).compute))


def test_the_longest_samples_are_tried_and_leave_a_size_that_fits():
    memory, mine = Memory(18), passes()
    mine.try_longest(LENGTHS, collate, memory.compute)
    assert memory.tried == [[1, 9, 3, 4], [1, 9], [3, 4]]
    memory.tried.clear()
    list(mine.over(LENGTHS, collate, memory.compute))
    assert all(len(places) * max(LENGTHS[i] for i in places) <= 18 for places in memory.tried)


@pytest.mark.parametrize("rooms", [(100, 9, 100), (18, 18, 9), (9, 100, 100)])
def test_ranks_that_take_turns_take_as_many_passes_though_one_has_less_memory(monkeypatch, rooms):
    here, barrier = threading.local(), threading.Barrier(len(rooms), timeout=20)
    flags = [False] * len(rooms)

    def any_rank(flag):
        flags[here.rank] = flag
        barrier.wait()
        found = any(flags)
        barrier.wait()
        return found

    monkeypatch.setattr(ranks, "world", lambda: (here.rank, len(rooms)))
    monkeypatch.setattr(ranks, "any_rank", any_rank)
    memories, found = [Memory(tokens) for tokens in rooms], [[] for _ in rooms]

    def work(rank):
        here.rank = rank
        for places, _ in passes(together=True).over(LENGTHS, collate, memories[rank].compute):
            found[rank] += places

    threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(rooms))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({len(memory.tried) for memory in memories}) == 1
    assert sorted(sum(found, [])) == list(range(len(LENGTHS)))
