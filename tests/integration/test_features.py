"""Where features are computed."""

import sys
from types import ModuleType

import pytest
import torch

from tests.integration.support import arguments, module_of, tuner

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("there", "device"), [(True, "cuda:3"), (False, "cpu")])
def test_features_are_computed_on_this_processes_gpu_where_there_is_one(monkeypatch, there, device):
    tuner()
    from llamafactory_dids.integration.domains import features

    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert features.device() == torch.device(device)


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
