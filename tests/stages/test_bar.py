"""What a stage says of its progress, and what the web page reads of it."""

import logging
import sys

import pytest

from llamafactory_dids.stages import bar as module
from llamafactory_dids.stages.bar import BarLine, last_progress, progress

HOST_FORMAT = "[%(levelname)s|%(asctime)s] %(filename)s:%(lineno)s >> %(message)s"


@pytest.fixture
def lines(caplog):
    """The log, as LLaMA-Factory writes it into the file that its page shows."""
    caplog.set_level(logging.INFO, logger=module.__name__)
    formatter = logging.Formatter(HOST_FORMAT)
    return lambda: "\n".join(formatter.format(record) for record in caplog.records)


def test_last_line_can_be_read_back(lines):
    with progress("gradients", 30, "tokens") as advance:
        advance(10, 5)
        assert last_progress(lines()).done == 10
        advance(20, 5)
    assert last_progress(lines()) == BarLine("gradients", 30, 30, "0:00:00", "0:00:00")


def test_lines_are_few_however_often_it_is_told(lines, monkeypatch):
    clock = iter(range(10_000))
    monkeypatch.setattr(module.time, "monotonic", lambda: 0.1 * next(clock))
    with progress("gradients", 1000, "tokens") as advance:
        for _ in range(1000):
            advance(1, 1)
    assert len(lines().splitlines()) == pytest.approx(100 / module.SECONDS_BETWEEN_LINES, abs=2)


def test_time_left_is_in_proportion_to_what_is_left(lines, monkeypatch):
    clock = iter([0.0, 60.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("embeddings", 300, "tokens") as advance:
        advance(100, 6000)
    assert last_progress(lines()) == BarLine("embeddings", 100, 300, "0:01:00", "0:02:00")
    assert "100 tokens/s" in lines()


def test_hours_are_counted_on_where_a_stage_takes_days(lines, monkeypatch):
    clock = iter([0.0, 90_061.0])
    monkeypatch.setattr(module.time, "monotonic", lambda: next(clock))
    with progress("gradients", 300) as advance:
        advance(100)
    assert last_progress(lines()) == BarLine("gradients", 100, 300, "25:01:01", "50:02:02")


def test_terminal_gets_a_bar_and_no_lines(lines, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    with progress("gradients", 2, "tokens") as advance:
        advance(2, 2)
    assert lines() == ""


@pytest.mark.parametrize("log", ["", "[INFO] a.py:1 >> loading 3 of 4 samples", "```\nhello\n```"])
def test_log_without_progress_has_none(log):
    assert last_progress(log) is None


def test_stages_that_count_data_sets_tasks_or_domains_are_read_back_too(lines):
    for name, of in (("loading", "dataset"), ("tasks", "task"), ("unseen", "domain"), ("the tasks' samples", "sample")):
        with progress(name, 2, of=of) as advance:
            advance(2)
        assert lines().splitlines()[-1].endswith(f">> {name}: 2 of 2 {of}s, 0:00:00 < 0:00:00")
        assert last_progress(lines())[:3] == (name, 2, 2)
