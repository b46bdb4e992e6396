"""Where features are computed."""

import sys
from types import ModuleType, SimpleNamespace

import pytest
import torch

from tests.integration.support import arguments, module_of, tuner

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(
    ("kind", "there", "said"),
    [
        ("xpu:3", True, "on xpu:3"),
        ("cpu", True, "on the CPU, since use_cpu says so"),
        ("cpu", False, "on the CPU, since torch finds no accelerator"),
    ],
)
def test_the_log_says_where_features_are_computed_and_why_not_elsewhere(monkeypatch, kind, there, said):
    tuner()
    from llamafactory_dids.integration.domains import features

    monkeypatch.setattr(torch.accelerator, "is_available", lambda: there)
    assert features.where(torch.device(kind)) == said


def test_features_are_computed_where_the_host_trains():
    tuner()
    from llamafactory_dids.integration.domains import features

    source = SimpleNamespace(settings=None, training_args=SimpleNamespace(device=torch.device("xpu:3")))
    assert features.Gradients(source, None).device == features.Embeddings(source, None).device == torch.device("xpu:3")


@pytest.mark.parametrize("enabled", [True, False])
def test_the_proxy_has_the_kernels_that_the_trained_model_is_to_have(enabled, world, tmp_path, monkeypatch):
    tuner()
    from llamafactory.hparams import parser

    applied = []
    liger = {name: ModuleType(name) for name in ("liger_kernel", "liger_kernel.transformers")}
    liger["liger_kernel.transformers"].apply_liger_kernel_to_llama = lambda **keys: applied.append(keys)
    for name, module in liger.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(parser, "check_version", lambda *_args, **_kwargs: None)  # of a package that is not this one
    module_of(arguments(world, tmp_path, enable_liger_kernel=enabled))
    assert bool(applied) == enabled
    assert all(keys == {} for keys in applied)
