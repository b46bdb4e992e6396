"""A store filled by ranks that come and go: threads that meet at barriers stand for the processes."""

import threading

import numpy as np
import pytest
import torch

from llamafactory_dids.artifacts.gradient_store import open_store
from llamafactory_dids.errors import DidsError
from llamafactory_dids.stages import filling, ranks
from llamafactory_dids.stages.filling import Block, fill_store

NUM_ROWS, K, PART_ROWS = 45, 8, 4  # 12 parts


class Made:
    """Features that depend on the row alone; `fails` says at which part this rank breaks off."""

    name, unit = "made up", "rows"

    def __init__(self, fails=None):
        self.fails, self.parts = fails, []

    def blocks(self, rows):
        if len(self.parts) == self.fails:
            raise DidsError("made up: broken off")
        self.parts.append(rows[0] // PART_ROWS)
        for row in rows:
            generator = torch.Generator().manual_seed(row)
            yield Block([row - rows[0]], torch.randn(1, K, generator=generator), torch.ones(1, dtype=torch.bool), 1)


@pytest.fixture
def together(monkeypatch):
    """Runs a filling on so many ranks at a time; what each of them raised."""
    here = threading.local()

    def run(folder, features):
        barrier = threading.Barrier(len(features))
        messages = [""] * len(features)
        raised = [None] * len(features)

        def words(mine):
            messages[here.rank] = mine
            barrier.wait()
            found = list(messages)
            barrier.wait()  # all have read before one says the next
            return found

        monkeypatch.setattr(ranks, "world", lambda: (here.rank, len(features)))
        monkeypatch.setattr(ranks, "_words", words)

        def work(rank):
            here.rank = rank
            try:
                fill_store(open_store(folder, {}, NUM_ROWS, K, PART_ROWS), features[rank])
            except DidsError as error:
                raised[rank] = error

        open_store(folder, {}, NUM_ROWS, K, PART_ROWS)
        threads = [threading.Thread(target=work, args=(rank,)) for rank in range(len(features))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return raised

    return run


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize(("before", "after"), [(1, 3), (3, 1), (3, 2), (2, 5)])
def test_any_number_of_ranks_can_finish_what_another_number_began(tmp_path, together, before, after):
    assert not any(together(tmp_path / "whole", [Made()]))
    broken = [Made(fails=1) for _ in range(before)]
    assert all(together(tmp_path / "shared", broken))
    finishing = [Made() for _ in range(after)]
    assert not any(together(tmp_path / "shared", finishing))
    made = [part for one in broken + finishing for part in one.parts]
    assert sorted(made) == list(range(12)), "each part is made once"
    assert contents(tmp_path / "shared") == contents(tmp_path / "whole")


def test_ranks_take_as_many_parts_as_each_other_but_for_one(tmp_path, together):
    features = [Made() for _ in range(5)]
    together(tmp_path, features)
    assert sorted(len(one.parts) for one in features) == [2, 2, 2, 3, 3]


def test_no_rank_waits_for_one_that_failed_and_all_say_why(tmp_path, together):
    raised = together(tmp_path, [Made(), Made(fails=0)])
    assert [str(error) for error in raised] == [
        "made up: another process failed: made up: broken off",
        "made up: broken off",
    ]


def test_memory_is_that_of_one_part_whatever_the_number_of_samples(tmp_path, together, monkeypatch):
    sizes = []
    zeros = np.zeros
    monkeypatch.setattr(filling.np, "zeros", lambda shape, **how: sizes.append(shape) or zeros(shape, **how))
    together(tmp_path, [Made()])
    assert max(shape[0] for shape in sizes if isinstance(shape, tuple)) == PART_ROWS
