"""What each rank takes of the work, seen from each of them."""

import pytest

from llamafactory_dids.stages import ranks


@pytest.mark.parametrize("num_items", [0, 1, 2, 3, 7, 8])
@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_each_item_counts_once_and_all_ranks_take_as_many(num_items, num_ranks, monkeypatch):
    items, taken = list(range(num_items)), []
    for rank in range(num_ranks):
        monkeypatch.setattr(ranks, "world", lambda rank=rank: (rank, num_ranks))
        taken.append(list(ranks.shared_out(items)))
    assert sorted(item for share in taken for item, counts in share if counts) == items
    assert len({len(share) for share in taken}) == 1
    assert all(item in items for share in taken for item, _ in share)
