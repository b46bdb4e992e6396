"""Whether a proxy fits is told by its configuration, before anything is loaded."""

from types import SimpleNamespace

import pytest
import torch
from transformers import LlamaConfig

from llamafactory_dids.config import make_config
from llamafactory_dids.errors import DidsError
from tests.integration.support import arguments, tuner, write_yaml

pytestmark = [pytest.mark.integration, pytest.mark.usefixtures("no_model")]

SIZES = {  # as LLaMA's of these names
    "8B": (4096, 14336, 32, 128_256),
    "70B": (8192, 28672, 80, 128_256),
}


@pytest.fixture
def check(tmp_path, monkeypatch):
    """Checks a model of a size as the proxy, on an accelerator or a CPU with so many GB."""
    tuner()
    from llamafactory.hparams import ModelArguments

    from llamafactory_dids.core import devices
    from llamafactory_dids.integration.domains.sizes import check_proxy

    def run(name, memory, *, device="cuda", proxy=True, **keys):
        hidden, inner, blocks, vocabulary = SIZES[name]
        heads = {"num_attention_heads": hidden // 128, "num_key_value_heads": 8}
        config = LlamaConfig(
            hidden_size=hidden, intermediate_size=inner, num_hidden_layers=blocks, vocab_size=vocabulary, **heads
        )
        setattr(config, "dtype" if hasattr(config, "dtype") else "torch_dtype", torch.bfloat16)
        config.save_pretrained(tmp_path / name)
        monkeypatch.setattr(devices, "memory", lambda _device: memory and (0, int(memory * 1e9)))
        path = str(tmp_path / name)
        given = make_config({"dids_proxy_model": path if proxy else None, **keys})
        settings = SimpleNamespace(config=given, finetuning_args=SimpleNamespace(finetuning_type="full"))
        model_args = ModelArguments(model_name_or_path=str(tmp_path / "trained") if proxy else path)
        check_proxy(settings, model_args, torch.device(device))

    return run


def test_a_proxy_of_more_entries_than_a_projection_tells_apart_is_refused_by_key(check):
    with pytest.raises(DidsError, match="dids_proxy_model: got .*70B', allowed: a model of which dids_gradient_layers"):
        check("70B", None)


def test_fewer_tracked_blocks_make_room_for_a_large_one(check):
    check("70B", 1000, dids_gradient_layers=0.05)


def test_a_proxy_that_is_larger_than_the_memory_of_an_accelerator_is_refused_with_both_sizes(check):
    with pytest.raises(DidsError, match=r"dids_proxy_model: got .*8B', .* 24.0 GB of each process on cuda .* 8,030,"):
        check("8B", 24)
    check("8B", 80)


def test_on_a_cpu_it_is_a_warning_since_the_file_may_be_for_another_machine(check, caplog):
    check("8B", 24, device="cpu")
    assert "allowed: a model that fits whole into the 24.0 GB" in caplog.text


def test_ranks_on_cpus_share_the_memory_of_the_machine(check, caplog, monkeypatch):
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "4")
    check("8B", 64, device="cpu")
    assert "the 16.0 GB of each process on cpu" in caplog.text


def test_a_device_that_does_not_say_its_memory_refuses_nothing(check):
    check("8B", None, device="mps")


def test_a_large_trained_model_as_its_own_proxy_is_worth_a_word(check, caplog):
    check("8B", 80, proxy=False)
    assert "dids_proxy_model: the trained model itself, whole on each process" in caplog.text


def test_explain_says_how_large_the_proxy_is(world, tmp_path, capsys, monkeypatch):
    tuner()
    from llamafactory_dids.integration.commands import cli
    from llamafactory_dids.integration.domains import sizes

    monkeypatch.setattr(sizes, "LARGE", 10)
    monkeypatch.setattr("sys.argv", [])
    cli.main(["explain", str(write_yaml(tmp_path / "run.yaml", arguments(world, tmp_path)))])
    words = " ".join(capsys.readouterr().out.partition("Proxy:")[2].split())  # a long row is wrapped
    assert words.startswith(str(world.model)) and "whole on each process" in words
