import json

import numpy as np
import pytest

from llamafactory_dids.artifacts.mixture_log import MixtureLog, find_log
from llamafactory_dids.errors import DidsError


@pytest.fixture
def log(tmp_path):
    return MixtureLog(tmp_path / "run" / "mixture.jsonl")


def test_what_was_appended_is_read_in_order(log):
    lines = [{"step": step, "probabilities": {"数学": 0.25, "b\u2028\x85": 0.75}} for step in (0, 10, 20)]
    for line in lines:
        log.append(line)
    assert log.read() == lines
    assert log.path.read_text().count("\n") == 3


def test_no_file_is_no_lines(log):
    assert log.read() == []


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), np.float64("nan")])
def test_what_json_does_not_have_is_written_as_null_however_deep(log, value):
    log.append({"step": 0, "impact": {"a": {"t": value, "u": 1.5}}, "losses": [value, 2.0], "more": (value,)})
    text = log.path.read_text()
    assert "NaN" not in text and "Infinity" not in text
    impact = {"a": {"t": None, "u": 1.5}}
    assert log.read() == [json.loads(text[: text.index(', "digest"')] + "}")]
    assert log.read()[0] == {"step": 0, "impact": impact, "losses": [None, 2.0], "more": [None]}


def test_a_log_put_back_is_byte_for_byte_what_it_was(log):
    for at in (0, 10):
        log.append({"step": at, "value": float("nan"), "share": 0.1 + 0.2, "name": "naïve"})
    lines, text = log.read(), log.path.read_bytes()
    log.append({"step": 20})
    with open(log.path, "a") as stream:
        stream.write('{"step": 3')  # of a run that was killed
    log.replace(lines)
    assert log.path.read_bytes() == text
    log.append({"step": 20, "again": True})
    assert [line["step"] for line in log.read()] == [0, 10, 20]


def test_a_broken_line_is_refused_by_the_files_name(log):
    log.append({"step": 0})
    with open(log.path, "a") as stream:
        stream.write('garbage\n{"step": 10}\n')
    with pytest.raises(DidsError, match=f"{log.path}: not a mixture log"):
        log.read()


def test_a_changed_line_is_refused_and_so_is_one_that_lost_its_checksum(log):
    for at in (0, 10):
        log.append(line(at, 0.5))
    whole = log.path.read_text()
    for old, new in (('"a": 0.5', '"a": 0.7'), ('"digest"', '"digesT"')):
        log.path.write_text(whole.replace(old, new, 1))
        with pytest.raises(DidsError, match=f"{log.path}: "):
            log.read()


def line(samples, a, loss=1.0):
    losses = {"t": loss, "u": 2.0}
    return {"step": samples, "samples_seen": samples, "probabilities": {"a": a, "b": 1 - a}, "task_loss": losses}


def test_record_holds_what_was_written_as_arrays(log):
    log.append(line(0, 0.5, loss=float("nan")))
    log.append(line(10, 0.25))
    record = log.record()
    assert (record.domain_names, record.task_names) == (("a", "b"), ("t", "u"))
    np.testing.assert_array_equal(record.samples_U, [0, 10])
    np.testing.assert_array_equal(record.probabilities_UD, [[0.5, 0.5], [0.25, 0.75]])
    np.testing.assert_array_equal(record.task_losses_UT, [[np.nan, 2], [1, 2]])


def test_record_does_not_depend_on_the_order_of_the_names_in_a_line(log):
    log.append(line(0, 0.5))
    log.append({**line(10, 0.25), "probabilities": {"b": 0.75, "a": 0.25}})
    np.testing.assert_array_equal(log.record().probabilities_UD, [[0.5, 0.5], [0.25, 0.75]])


def test_mean_weighs_each_mixture_by_the_samples_until_the_next_and_leaves_the_last_out(log):
    for samples, a in ((0, 0.2), (10, 0.5), (40, 1.0)):
        log.append(line(samples, a))
    assert log.record().mean() == pytest.approx({"a": (10 * 0.2 + 30 * 0.5) / 40, "b": (10 * 0.8 + 30 * 0.5) / 40})


def test_record_without_tasks_has_no_columns_for_them(log):
    log.append({**line(0, 0.2), "task_loss": {}})
    assert log.record().task_losses_UT.shape == (1, 0)


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        ([], "at least one line"),
        ([{"step": 0}], "lacks 'samples_seen'"),
        ([line(0, 0.5), {**line(10, 0.5), "probabilities": {"a": 0.5, "c": 0.5}}], "probabilities of b, c in some"),
        ([line(0, 0.5), {**line(10, 0.5), "task_loss": {"t": 1.0}}], "task_loss of u in some"),
        ([line(0, float("nan"))], "with probabilities"),
        ([{**line(0, 0.5), "probabilities": {}}], "with probabilities"),
        ([line(0, 0.5), line(0, 0.25)], "samples_seen must grow"),
        ([["a list"]], "not a mixture log"),
        ([{**line(0, 0.5), "probabilities": [0.5, 0.5]}], "not a mixture log"),
    ],
)
def test_log_without_a_whole_record_is_refused_by_name(log, lines, words):
    log.path.parent.mkdir()
    log.path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(DidsError, match=words) as caught:
        log.record()
    assert str(log.path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("place", ["", "dids", "dids/mixture.jsonl"])
def test_log_is_found_by_its_path_and_by_the_folders_of_its_run(tmp_path, place):
    log = MixtureLog(tmp_path / "dids" / "mixture.jsonl")
    log.append(line(0, 0.5))
    assert find_log(tmp_path / place) == log.path


def test_folder_without_a_log_is_refused_by_name(tmp_path):
    with pytest.raises(DidsError, match=f"{tmp_path}: no mixture log"):
        find_log(tmp_path)
