"""Fixtures of the integration tests: one world and one finished run for all of them."""

import json
import os
import shutil

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported; tiny models are faster so

import pytest

from tests.integration.support import World, arguments, make_world, train, tuner, write_dataset


@pytest.fixture(scope="session")
def world(tmp_path_factory):
    """Data sets and models; read, never changed."""
    return make_world(tmp_path_factory.mktemp("world"))


class OwnWorld(World):
    """A world whose data sets a test may change."""

    def rewrite(self, name, change):
        """Write the rows of a data set anew, which `change` gives."""
        write_dataset(self.data, name, change(json.loads((self.data / f"{name}.json").read_text())))


@pytest.fixture
def own(world, tmp_path):
    """The world with data sets of its own."""
    shutil.copytree(world.data, tmp_path / "world" / "data")
    for name in ("model", "proxy"):
        (tmp_path / "world" / name).symlink_to(world.folder / name)
    return OwnWorld(tmp_path / "world")


@pytest.fixture(scope="session")
def finished(world, tmp_path_factory):
    """A finished `stage: sft` run of a full model over clustered domains; read, never changed."""
    return train(arguments(world, tmp_path_factory.mktemp("finished")), pictures=True)


@pytest.fixture
def no_model(monkeypatch):
    """Loading a model fails the test."""

    def load_model(*_args, **_kwargs):
        raise AssertionError("a model was loaded")

    tuner()
    from llamafactory.train.pt import workflow as pt
    from llamafactory.train.sft import workflow as sft

    from llamafactory_dids.integration.domains import proxy

    for module in (pt, sft, proxy):
        monkeypatch.setattr(module, "load_model", load_model)
