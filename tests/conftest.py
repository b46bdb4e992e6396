"""For all tests: an environment of its own for each, and, without a GPU, interpreted kernels."""

import os
from unittest import mock

import pytest
import torch
from hypothesis import settings

settings.register_profile("untimed", deadline=None)  # a busy machine is no failure
settings.load_profile("untimed")

if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")  # which is decided when Triton is imported


@pytest.fixture(autouse=True)
def own_environment():
    """The host's arguments note precision and sharding in it, and each later run of the process would take them up."""
    with mock.patch.dict(os.environ):
        yield
