"""Offline strategies: the proxy runs are made first, once, by the host's own workflow, and hand their mixture over."""

import json
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch

from llamafactory_dids.artifacts.mixture_log import MixtureLog
from llamafactory_dids.errors import DidsError
from llamafactory_dids.training.controller import MixtureController
from tests.integration.support import (
    arguments,
    captured_trainers,
    finish_well,
    our_log,
    start,
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


@pytest.fixture(scope="module", params=RUNS)
def offline(request, world, finished, tmp_path_factory):
    """(values, expected names of the proxy runs, the run, all trainers that trained)."""
    changes, names = RUNS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    values = arguments(world, folder, dids_domains=str(finished.dids), dids_num_domains=None, **changes)
    values |= {"dids_min_domain_size": 5, "learning_rate": 1e-3}
    with captured_trainers() as seen:
        ran = train(values)
        return values, names, ran, len(seen) + 1


def logs_of(ran):
    return {path.stem: MixtureLog(path).record() for path in sorted((ran.dids / "proxy_runs").glob("*.jsonl"))}


def test_each_proxy_run_leaves_its_log_with_the_main_run(offline):
    _, names, ran, _ = offline
    logs = logs_of(ran)
    assert sorted(logs) == sorted(names)
    for log in logs.values():
        assert log.domain_names == tuple(ran.probabilities[0])


def test_the_main_run_uses_what_the_proxy_runs_found(offline):
    values, names, ran, _ = offline
    last = logs_of(ran)[names[-1]]
    if "pilot" in names:
        assert len(ran.lines) == 7 and ran.probabilities[0] != ran.probabilities[-1]
        assert last.samples_U[-1] == pytest.approx(24 * 8 / 2, abs=16), "the pilot is a part of the run"
    else:
        assert all(p == ran.probabilities[0] for p in ran.probabilities) and ran.lines[-1]["closing"]
        assert ran.probabilities[0] == pytest.approx(last.mean())
        assert np.ptp(last.probabilities_UD, axis=0).max() > 1e-6, "the proxy's mixture never moved"


def test_a_finished_proxy_run_is_not_made_again_and_its_model_is_not_kept(offline, tmp_path):
    values, names, ran, _ = offline
    cache = Path(values["dids_cache_dir"])
    assert not list((cache / "proxy_runs").glob("*/*.safetensors"))
    with our_log() as messages, mock.patch.object(MixtureController, "load", side_effect=AssertionError):
        again = train(values | {"output_dir": str(tmp_path / "again"), "logging_steps": 7})
    assert again.probabilities == ran.probabilities
    assert sum("using the" in message for message in messages) == len(names)
    assert not any("begins" in message for message in messages)
    weights, expected = again.weights(), ran.weights()
    assert [name for name in expected if not torch.equal(weights[name], expected[name])] == []


class Broken(Exception):
    pass


def test_a_proxy_run_that_was_broken_off_goes_on_and_leaves_the_same(world, finished, tmp_path):
    def values(folder):
        changed = {"dids_domains": str(finished.dids), "dids_num_domains": None, "mix_strategy": "doge"}
        return arguments(world, tmp_path / folder, **changed, learning_rate=1e-3)

    whole = train(values("whole"))
    original = MixtureController.after_step

    def breaking(self, step):
        original(self, step)
        if step == 10:
            raise Broken

    with mock.patch.object(MixtureController, "after_step", breaking), pytest.raises(Broken):
        train(values("broken"))
    with our_log() as messages:
        ran = train(values("broken"))
    assert any("goes on from" in message and "checkpoint-9" in message for message in messages)
    found, expected = logs_of(ran)["proxy"], logs_of(whole)["proxy"]
    np.testing.assert_array_equal(found.probabilities_UD, expected.probabilities_UD)
    np.testing.assert_array_equal(found.samples_U, expected.samples_U)
    weights, of_whole = ran.weights(), whole.weights()
    assert [name for name in of_whole if not torch.equal(weights[name], of_whole[name])] == []


def test_the_proxy_may_be_another_model_with_a_tokenizer_of_its_own(world, finished, tmp_path):
    values = arguments(world, tmp_path, dids_domains=str(finished.dids), dids_num_domains=None, mix_strategy="doge")
    with captured_trainers() as seen:
        lora = {"finetuning_type": "lora", "lora_target": "all"}
        tuner().run_exp(values | lora | {"dids_proxy_model": str(world.proxy)})
    assert [trainer.model.config.num_hidden_layers for trainer in seen] == [2, 3]
    assert [hasattr(trainer.model, "peft_config") for trainer in seen] == [False, True]


def test_from_the_command_line_and_with_words_that_override(world, finished, tmp_path):
    values = arguments(world, tmp_path, dids_domains="source", dids_num_domains=None, mix_strategy="velocitune")
    path = write_yaml(tmp_path / "run.yaml", values)
    finish_well(start(["llamafactory-cli", "train", str(path), "dids_proxy_share=0.25"]))
    log = MixtureLog(tmp_path / "out" / "dids" / "proxy_runs" / "pilot.jsonl").record()
    assert log.samples_U.tolist()[-1] == 48
    lines = (tmp_path / "out" / "dids" / "mixture.jsonl").read_text().splitlines()
    assert len(lines) == 7 and json.loads(lines[-1])["samples_seen"] == 192


@pytest.mark.parametrize("key", ["fsdp"])
def test_sharded_training_is_refused_for_a_strategy_with_proxy_runs(world, tmp_path, key):
    values = arguments(world, tmp_path, mix_strategy="doge", **{key: "full_shard"}, fsdp_config={"fsdp_version": 2})
    with pytest.raises(DidsError, match=f"{key}: got "):
        train(values)


def test_two_ranks_make_the_proxy_run_together(world, finished, tmp_path):
    values = arguments(world, tmp_path, dids_domains=str(finished.dids), dids_num_domains=None, mix_strategy="doremi")
    values |= {"per_device_train_batch_size": 4, "learning_rate": 1e-3}
    path = write_yaml(tmp_path / "run.yaml", values)
    driver = str(Path(__file__).with_name("rank_driver.py"))
    finish_well(start(["torchrun", "--standalone", "--nproc-per-node", "2", driver, str(path), str(tmp_path)]))
    ranks = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    log = MixtureLog(tmp_path / "out" / "dids" / "proxy_runs" / "proxy.jsonl").record()
    assert log.samples_U.tolist() == [0, 32, 64, 96, 128, 160, 192]
    assert ranks[0]["history"][0][1] == pytest.approx(list(log.mean().values()))
    alone = train(values | {"per_device_train_batch_size": 8, "output_dir": str(tmp_path / "alone")})
    np.testing.assert_allclose(logs_of(alone)["proxy"].probabilities_UD, log.probabilities_UD, atol=1e-4)
