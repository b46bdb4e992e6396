"""Whether a run shards its model is read from where it is asked for, and is forgotten while a whole model is loaded."""

import os
from types import SimpleNamespace

import pytest
from transformers.integrations import deepspeed

from llamafactory_dids.integration.host.sharding import fsdp_version, uses_deepspeed, whole_models

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("fsdp", "config", "environment", "version"),
    [
        ([], {}, {}, 0),
        ([], {}, {"ACCELERATE_USE_FSDP": "false", "FSDP_VERSION": "2"}, 0),
        ([], {}, {"ACCELERATE_USE_FSDP": "true"}, 1),
        ([], {}, {"ACCELERATE_USE_FSDP": "true", "FSDP_VERSION": "2"}, 2),
        (["full_shard"], {}, {}, 1),
        (["full_shard"], {"version": 2}, {}, 2),
    ],
)
def test_fsdp_is_asked_for_by_the_yaml_file_or_by_accelerate(fsdp, config, environment, version, monkeypatch):
    for key in ("ACCELERATE_USE_FSDP", "FSDP_VERSION"):
        monkeypatch.delenv(key, raising=False)
    for key, value in environment.items():
        monkeypatch.setenv(key, value)
    assert fsdp_version(SimpleNamespace(fsdp=fsdp, fsdp_config=config, fsdp_plugin_args=None)) == version


@pytest.mark.parametrize(("environment", "version"), [(None, 1), ("2", 2)])
def test_where_transformers_does_not_hand_on_the_files_version_the_environment_says_it(
    environment, version, monkeypatch
):
    monkeypatch.delenv("FSDP_VERSION", raising=False)
    if environment:
        monkeypatch.setenv("FSDP_VERSION", environment)
    of_transformers_4 = SimpleNamespace(fsdp=["full_shard"], fsdp_config={"version": 2})
    assert fsdp_version(of_transformers_4) == version


def test_deepspeed_is_asked_for_by_the_yaml_file_or_by_accelerate(monkeypatch):
    monkeypatch.delenv("ACCELERATE_USE_DEEPSPEED", raising=False)
    assert not uses_deepspeed(SimpleNamespace(deepspeed=None))
    assert uses_deepspeed(SimpleNamespace(deepspeed="ds.json"))
    monkeypatch.setenv("ACCELERATE_USE_DEEPSPEED", "true")
    assert uses_deepspeed(SimpleNamespace(deepspeed=None))


def test_a_model_is_loaded_whole_and_the_next_one_sharded_again_even_after_a_failure(monkeypatch):
    class Zero3:
        config = {"zero_optimization": {"stage": 3}}

        def is_zero3(self):
            return True

    asked = Zero3()  # the host's library holds it weakly
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    monkeypatch.setattr(deepspeed, "_hf_deepspeed_config_weak_ref", None)
    deepspeed.set_hf_deepspeed_config(asked)
    with pytest.raises(OSError), whole_models():
        assert not deepspeed.is_deepspeed_zero3_enabled() and "ACCELERATE_USE_FSDP" not in os.environ
        raise OSError("no such model")
    assert deepspeed.is_deepspeed_zero3_enabled() and os.environ["ACCELERATE_USE_FSDP"] == "true"
