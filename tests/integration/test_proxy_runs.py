"""Offline strategies: the proxy runs are made first, once, by the host's own workflow, and hand their mixture over."""

import functools
import sys
from pathlib import Path
from unittest import mock

import numpy as np
import pytest

from llamafactory_dids.artifacts.mixture_log import MixtureLog
from llamafactory_dids.training.controller import MixtureController
from tests.integration.support import (
    BY_SOURCE,
    Run,
    arguments,
    assert_same_weights,
    captured_trainers,
    our_log,
    same_domains,
    train,
    tuner,
    write_yaml,
)

pytestmark = pytest.mark.integration

RUNS = {
    "doge": ({"mix_strategy": "doge"}, ["proxy"]),
    "doremi": ({"mix_strategy": "doremi"}, ["reference", "proxy"]),
    "doremi-domains": (
        {"mix_strategy": "doremi", "dids_doremi_target": "domains", "dids_tasks": None, "dids_fresh_samples": 8},
        ["reference", "proxy"],
    ),
    "velocitune": ({"mix_strategy": "velocitune"}, ["pilot"]),
}


def values_of(world, finished, folder, **changes):
    """A run over the domains of the finished one."""
    return arguments(world, folder, learning_rate=1e-3, **same_domains(finished), **changes)


@pytest.fixture(scope="module")
def offline_runs(world, finished, tmp_path_factory):
    """(arguments, expected names of the proxy runs, the run) by what stands in `RUNS`, made once."""

    @functools.cache
    def run(name):
        changes, names = RUNS[name]
        values = values_of(world, finished, tmp_path_factory.mktemp(name), **changes)
        return values, names, train(values)

    return run


@pytest.fixture(params=RUNS)
def offline(request, offline_runs):
    return offline_runs(request.param)


def logs_of(ran):
    return {path.stem: MixtureLog(path).record() for path in sorted((ran.dids / "proxy_runs").glob("*.jsonl"))}


def test_each_proxy_run_leaves_its_log_with_the_main_run(offline):
    _, names, ran = offline
    logs = logs_of(ran)
    assert sorted(logs) == sorted(names)
    for log in logs.values():
        assert log.domain_names == tuple(ran.probabilities[0])


def test_the_main_run_uses_what_the_proxy_runs_found(offline):
    _, names, ran = offline
    last = logs_of(ran)[names[-1]]
    if "pilot" in names:
        assert len(ran.lines) == 7 and ran.probabilities[0] != ran.probabilities[-1]
        assert last.samples_U[-1] == pytest.approx(24 * 8 / 2, abs=16), "the pilot is a part of the run"
    else:
        assert all(p == ran.probabilities[0] for p in ran.probabilities) and ran.lines[-1]["closing"]
        assert ran.probabilities[0] == pytest.approx(last.mean())
        assert np.ptp(last.probabilities_UD, axis=0).max() > 1e-6, "the proxy's mixture never moved"


def test_a_finished_proxy_run_is_not_made_again_and_its_model_is_not_kept(offline, tmp_path):
    values, names, ran = offline
    cache = Path(values["dids_cache_dir"])
    assert not list((cache / "proxy_runs").glob("*/*.safetensors"))
    with our_log() as messages, mock.patch.object(MixtureController, "load", side_effect=AssertionError):
        again = train(values | {"output_dir": str(tmp_path / "again"), "logging_steps": 7})
    assert again.probabilities == ran.probabilities
    assert sum("using the" in message for message in messages) == len(names)
    assert not any("begins" in message for message in messages)
    assert_same_weights(again.weights(), ran.weights())


class Broken(Exception):
    pass


def test_a_proxy_run_that_was_broken_off_goes_on_and_leaves_the_same(offline_runs, world, finished, tmp_path):
    _, _, whole = offline_runs("doge")
    values = values_of(world, finished, tmp_path, mix_strategy="doge")
    original = MixtureController.after_step

    def breaking(self, step):
        original(self, step)
        if step == 10:
            raise Broken

    with mock.patch.object(MixtureController, "after_step", breaking), pytest.raises(Broken):
        train(values)
    with our_log() as messages:
        ran = train(values)
    assert any("goes on from" in message and "checkpoint-9" in message for message in messages)
    found, expected = logs_of(ran)["proxy"], logs_of(whole)["proxy"]
    np.testing.assert_array_equal(found.probabilities_UD, expected.probabilities_UD)
    np.testing.assert_array_equal(found.samples_U, expected.samples_U)
    assert_same_weights(ran.weights(), whole.weights())


def test_the_proxy_may_be_another_model_with_a_tokenizer_of_its_own(world, finished, tmp_path):
    changes = {"finetuning_type": "lora", "dids_proxy_model": str(world.proxy), "max_steps": 8}
    with captured_trainers() as seen:
        tuner().run_exp(values_of(world, finished, tmp_path, mix_strategy="doge", **changes))
    assert [trainer.model.config.num_hidden_layers for trainer in seen] == [2, 3]
    assert [hasattr(trainer.model, "peft_config") for trainer in seen] == [False, True]


def test_words_of_a_command_line_override_those_of_the_file(world, tmp_path, monkeypatch):
    path = write_yaml(tmp_path / "run.yaml", arguments(world, tmp_path, mix_strategy="velocitune", **BY_SOURCE))
    monkeypatch.setattr(sys, "argv", ["llamafactory-cli", str(path), "dids_proxy_share=0.25"])
    tuner().run_exp()
    ran = Run(tmp_path / "out", None)
    assert logs_of(ran)["pilot"].samples_U.tolist()[-1] == 48
    assert len(ran.lines) == 7 and ran.lines[-1]["samples_seen"] == 192
