"""`static` takes over the mean mixture of another run, by the names of its domains."""

import numpy as np
import pytest

from tests.integration.support import arguments, module_of, refusal, same_domains

pytestmark = pytest.mark.integration


def static(world, folder, **changes):
    return arguments(world, folder, **{"mix_strategy": "static", "dids_tasks": None} | changes)


@pytest.mark.parametrize("place", ["dids/mixture.jsonl", "dids", ""])
def test_mixture_of_a_run_is_its_mean_over_the_run(place, finished, world, tmp_path):
    values = static(world, tmp_path, dids_probs=str(finished.folder / place), **same_domains(finished))
    plan = module_of(values)[0]["mixing"]
    p = plan.mixer.init().probabilities_D
    expected = np.mean([list(line.values()) for line in finished.probabilities[:-1]], axis=0)
    assert plan.domain_names == tuple(finished.probabilities[0])
    assert p == pytest.approx(expected)


def test_names_that_do_not_fit_are_refused_with_both(finished, world, no_model, tmp_path):
    message = refusal(static(world, tmp_path, dids_probs=str(finished.dids), dids_domains="source"))
    assert str(finished.dids) in message and message.startswith("dids_probs: ")
    assert "has sums/0, " in message and "lacks sums, pairs, noise of this run's domains" in message


@pytest.mark.parametrize("content", ["", "garbage\n", '{"step": 0}\n'])
def test_broken_log_is_refused_by_name_before_data_is_read(content, world, no_model, tmp_path):
    (tmp_path / "mixture.jsonl").write_text(content)
    message = refusal(static(world, tmp_path, dids_probs=str(tmp_path), dataset="sums"))
    assert str(tmp_path / "mixture.jsonl") in message and "mixture log" in message


def test_folder_without_a_log_is_refused_by_name(world, no_model, tmp_path):
    message = refusal(static(world, tmp_path, dids_probs=str(tmp_path)))
    assert message == f"{tmp_path}: no mixture log; allowed: a run's mixture.jsonl, or the folder of a run"


def test_log_for_another_strategy_is_refused(finished, world, no_model, tmp_path):
    message = refusal(arguments(world, tmp_path, dids_probs=str(finished.dids)))
    assert message.startswith("dids_probs: got ") and "mix_strategy is dids" in message
