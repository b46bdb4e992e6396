"""The report at the end of a training."""

import json

import pytest

from tests.integration.support import arguments, our_log, same_domains, train, tuner

pytestmark = pytest.mark.integration


def test_the_report_of_a_run_has_its_verdict_pictures_and_cost(finished):
    text = (finished.dids / "report.html").read_text()
    assert text.count("data:image/png;base64,") == 4
    last = finished.lines[-1]
    assert all(f"→ {loss:.3f}" in text for loss in last["task_loss"].values())
    cost = json.loads((finished.dids / "cost.json").read_text())
    assert 0 < cost["update_seconds"] < cost["seconds"]
    assert "went into measuring and choosing the mixture" in text


def test_a_report_that_cannot_be_written_is_one_line_and_the_training_ends_well(world, finished, tmp_path, monkeypatch):
    tuner()
    from llamafactory_dids.report import html

    def fail(_folder):
        raise RuntimeError("no ink\nleft")

    monkeypatch.setattr(html, "write_report", fail)
    with our_log() as messages:
        ran = train(arguments(world, tmp_path, max_steps=4, **same_domains(finished)))
    assert ran.trainer.state.global_step == 4
    (line,) = [message for message in messages if "no ink" in message]
    assert line.startswith("no report: no ink left (`llamafactory-dids report ") and "\n" not in line
