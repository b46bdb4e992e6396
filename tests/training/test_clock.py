"""Seconds by their keys, over all processes that a run went on in."""

import json

import pytest

from llamafactory_dids.artifacts.files import read_json
from llamafactory_dids.training import clock as module
from llamafactory_dids.training.clock import Clock


@pytest.fixture
def now(monkeypatch):
    """The time, to be moved on."""
    time = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: time[0])
    return time


def test_what_is_done_within_counts_for_its_key(now):
    clock = Clock()
    for seconds in (3.0, 4.0):
        with clock.on("domain_seconds"):
            now[0] += seconds
    clock.start()
    now[0] += 2.5
    assert clock.cost() == {
        "seconds": 2.5,
        "update_seconds": 0.0,
        "domain_seconds": 7.0,
        "importance_seconds": 0.0,
    }


def test_a_resumed_run_counts_on(now, tmp_path):
    first = Clock()
    with first.on("domain_seconds"):
        now[0] += 30.0
    first.start()
    with first.on("update_seconds"):
        now[0] += 5.0
    kept = json.loads(json.dumps(first.values()))
    assert list(kept) == ["seconds", "update_seconds", "spent"]
    now[0] += 1000.0  # lost with the process
    second = Clock()
    second.restore(kept)
    second.start()
    with second.on("update_seconds"):
        now[0] += 0.12345
    second.write(tmp_path)
    cost = read_json(tmp_path / "cost.json")
    assert list(cost.items()) == [
        ("seconds", 5.123),
        ("update_seconds", 5.123),
        ("domain_seconds", 30.0),
        ("importance_seconds", 0.0),
    ]


def test_a_checkpoint_of_an_earlier_version_has_nothing_spent(now):
    clock = Clock()
    clock.restore({"seconds": 4.0, "update_seconds": 1.0})
    clock.start()
    assert (clock.cost()["seconds"], clock.cost()["domain_seconds"]) == (4.0, 0.0)
