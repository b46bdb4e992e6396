"""What each rank takes of the work, and what two processes tell each other."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from llamafactory_dids.stages import ranks
from tests.helpers import PATIENCE


@pytest.mark.parametrize("num_ranks", [1, 2, 3])
def test_each_item_of_a_turn_counts_once_and_no_rank_goes_without(num_ranks, monkeypatch):
    for num_items in range(1, num_ranks + 1):
        items, taken = list(range(num_items)), []
        for rank in range(num_ranks):
            monkeypatch.setattr(ranks, "world", lambda rank=rank: (rank, num_ranks))
            taken.append(ranks.share_of(items))
        assert sorted(item for item, counts in taken if counts) == items
        assert all(item in items for item, _ in taken)


@pytest.fixture(scope="module")
def said(tmp_path_factory):
    """What each of two processes says that talked to each other."""
    driver, folder = Path(__file__).with_name("talking_driver.py"), tmp_path_factory.mktemp("talking")
    commands = [[sys.executable, str(driver), str(rank), str(folder)] for rank in range(2)]
    started = [subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for c in commands]
    outputs = [process.communicate(timeout=180 * PATIENCE) for process in started]
    assert [process.returncode for process in started] == [0, 0], outputs
    return [json.loads(out) for out, _ in outputs]


def test_a_cache_that_appears_between_two_ranks_looks_is_there_for_neither(said):
    assert [one["late_cache"] for one in said] == [False, False]


def test_a_file_that_another_machine_sees_late_is_waited_for(said):
    assert [one["late_sight"] for one in said] == [True, True]


def test_the_first_rank_may_work_longer_than_the_groups_timeout(said):
    assert [one["long_work"] for one in said] == [True, True]


def test_all_ranks_say_why_the_first_one_failed(said):
    assert [one["failing_work"] for one in said] == ["made up: got 1, allowed: 2"] * 2


def test_sums_are_right_where_the_group_takes_no_tensor_of_the_cpu_and_the_device_no_float64(said):
    for difference, counts, there, anyone in (one["sums_without_cpu"] for one in said):
        assert abs(difference) < 1e-7 and counts == [3, 10] and there == [4.0] and anyone
