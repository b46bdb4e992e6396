"""What each rank takes of the work, seen from each of them."""

import pytest

from llamafactory_dids.stages import ranks


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_each_item_of_a_turn_counts_once_and_no_rank_goes_without(num_ranks, monkeypatch):
    for num_items in range(1, num_ranks + 1):
        items, taken = list(range(num_items)), []
        for rank in range(num_ranks):
            monkeypatch.setattr(ranks, "world", lambda rank=rank: (rank, num_ranks))
            taken.append(ranks.share_of(items))
        assert sorted(item for item, counts in taken if counts) == items
        assert all(item in items for item, _ in taken)
