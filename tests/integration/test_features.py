"""Where features are computed."""

import pytest
import torch

from tests.integration.support import tuner

pytestmark = pytest.mark.integration


@pytest.mark.parametrize(("there", "device"), [(True, "cuda:3"), (False, "cpu")])
def test_features_are_computed_on_this_processes_gpu_where_there_is_one(monkeypatch, there, device):
    tuner()
    from llamafactory_dids.integration import features

    monkeypatch.setattr(torch.cuda, "is_available", lambda: there)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 3)
    assert features.device() == torch.device(device)
