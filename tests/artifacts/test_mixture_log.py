import json

import numpy as np
import pytest

from llamafactory_dids.artifacts.mixture_log import MixtureLog
from llamafactory_dids.errors import DidsError


@pytest.fixture
def log(tmp_path):
    return MixtureLog(tmp_path / "run" / "mixture.jsonl")


def test_what_was_appended_is_read_in_order(log):
    lines = [{"step": step, "probabilities": {"数学": 0.25, "b": 0.75}} for step in (0, 10, 20)]
    for line in lines:
        log.append(line)
    assert log.read() == lines
    assert len(log.path.read_text().splitlines()) == 3


def test_no_file_is_no_lines(log):
    assert log.read() == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float64("nan")])
def test_what_json_does_not_have_is_written_as_null_however_deep(log, value):
    log.append({"step": 0, "impact": {"a": {"t": value, "u": 1.5}}, "losses": [value, 2.0], "more": (value,)})
    text = log.path.read_text()
    assert "NaN" not in text and "Infinity" not in text
    impact = {"a": {"t": None, "u": 1.5}}
    assert json.loads(text) == {"step": 0, "impact": impact, "losses": [None, 2.0], "more": [None]}


@pytest.mark.parametrize(("step", "kept"), [(-1, []), (0, [0]), (10, [0, 10]), (15, [0, 10]), (99, [0, 10, 20])])
def test_a_resumed_run_drops_what_was_logged_after_its_checkpoint(log, step, kept):
    for at in (0, 10, 20):
        log.append({"step": at, "value": float("nan"), "name": "naïve"})
    log.keep_until(step)
    assert log.read() == [{"step": at, "value": None, "name": "naïve"} for at in kept]


def test_a_resumed_run_goes_on_in_the_same_file(log):
    for at in (0, 10, 20):
        log.append({"step": at})
    log.keep_until(10)
    log.append({"step": 20, "again": True})
    assert log.read() == [{"step": 0}, {"step": 10}, {"step": 20, "again": True}]


def test_a_broken_line_is_refused_by_the_files_name(log):
    log.append({"step": 0})
    with open(log.path, "a") as stream:
        stream.write('garbage\n{"step": 10}\n')
    with pytest.raises(DidsError, match=f"{log.path}: not a mixture log"):
        log.read()
