"""The report at the end of a training."""

import json

import pytest
import yaml

from llamafactory_dids.report.words import duration
from tests.integration.support import arguments, our_log, same_domains, train, tuner

pytestmark = pytest.mark.integration


def test_the_report_of_a_run_has_its_verdict_pictures_and_cost(finished):
    text = (finished.dids / "report.html").read_text()
    assert text.count("data:image/png;base64,") == 5
    last = finished.lines[-1]
    assert all(f"<td>{loss:.3f}</td>" in text for loss in last["task_loss"].values())
    cost = json.loads((finished.dids / "cost.json").read_text())
    assert 0 < cost["update_seconds"] < cost["seconds"] and finished.lines[-1]["seconds"] < cost["seconds"]
    assert f"{duration(cost['seconds'])} of training; {duration(cost['update_seconds'])} of it" in text
    assert f"Making the domains took {duration(cost['domain_seconds'])} before that." in text


@pytest.mark.parametrize("how", ["given", "found in the cache"])
def test_domains_that_are_not_made_cost_no_seconds(how, world, finished, tmp_path):
    found = {"dids_cache_dir": yaml.safe_load((finished.dids / "config.yaml").read_text())["dids_cache_dir"]}
    changes = same_domains(finished) if how == "given" else found
    ran = train(arguments(world, tmp_path, max_steps=3, mix_strategy="uniform", dids_tasks=None, **changes))
    cost = json.loads((ran.dids / "cost.json").read_text())
    assert cost["domain_seconds"] == cost["importance_seconds"] == 0
    assert cost["seconds"] > ran.lines[0]["seconds"], "a mixture that is never updated has its cost at the end too"


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


def test_the_report_is_written_when_the_workflow_has_evaluated_and_where_that_failed_too(tmp_path, monkeypatch):
    from types import SimpleNamespace

    from llamafactory_dids.integration.plan import trainers

    done = []
    monkeypatch.setattr(trainers, "_write", lambda folder: done.append(folder.name))

    def train_as(name):
        state = SimpleNamespace(is_world_process_zero=True)
        trainers.ReportCallback(tmp_path / name).on_train_end(None, state, None)

    @trainers.reporting
    def workflow(name, within=lambda: None):
        within()
        train_as(name)
        done.append(f"{name} evaluated")
        if name == "broken":
            raise ValueError("no eval set")

    workflow("main", within=lambda: workflow("proxy"))
    with pytest.raises(ValueError, match="no eval set"):
        workflow("broken")
    train_as("alone")
    assert done == ["proxy evaluated", "proxy", "main evaluated", "main", "broken evaluated", "broken", "alone"]
