"""A strategy of another package, named by an entry point: examples/custom_mixer is one."""

import math
from pathlib import Path

import numpy as np
import pytest

from llamafactory_dids import mixers
from llamafactory_dids.mixers import Signals

EXAMPLE = Path(__file__).parents[2] / "examples" / "custom_mixer"


def install(folder: Path, monkeypatch, package: str, line: str) -> None:
    """What pip leaves behind of a package with one entry point."""
    metadata = folder / f"{package}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(f"[{mixers.ENTRY_POINTS}]\n{line}\n")
    monkeypatch.syspath_prepend(str(folder))


@pytest.fixture(autouse=True)
def forget_factories():
    yield
    mixers._factory.cache_clear()


@pytest.fixture
def neediest(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "neediest_mixer_example", "neediest = neediest_mixer:neediest")
    monkeypatch.syspath_prepend(str(EXAMPLE))


def test_an_added_strategy_is_listed_behind_ours_and_takes_its_options(neediest):
    assert mixers.names()[-2:] == ("neediest", "odm"), "odm is ours, but added in the same way"
    assert mixers.options("neediest") == ("eta",)
    assert mixers.create("neediest", 3, 2, eta=1.5, sizes_D=[1, 2, 3]).eta == 1.5


def test_the_example_feeds_the_domain_that_is_aligned_with_the_worst_task(neediest):
    mixer = mixers.create("neediest", 3, 2)
    state = mixer.init()
    signals = Signals(np.array([[3.0, 1.0]]), np.array([[0.0, 0.9], [0.8, 0.0], [0.1, 0.1]]))
    for _ in range(10):
        p_D, state = mixer.update(state, signals)
    assert p_D.argmax() == 1 and p_D[1] > 0.8 and p_D.min() > 0.01


@pytest.mark.parametrize("value", [0.0, 1e30, -1e30, math.nan, math.inf, -math.inf])
def test_the_example_stays_on_the_simplex_whatever_it_is_told(neediest, value):
    mixer = mixers.create("neediest", 3, 2)
    p_D, state = mixer.update(mixer.init(), Signals(np.full((2, 2), value), np.full((3, 2), value)))
    assert np.isfinite(p_D).all() and (p_D > 0).all() and math.isclose(p_D.sum(), 1)
    assert np.array_equal(p_D, state.probabilities_D)


def test_a_name_that_is_taken_is_refused(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "usurper", "dids = neediest_mixer:neediest")
    with pytest.raises(ValueError, match="'dids' is claimed more than once .*neediest_mixer:neediest"):
        mixers.create("dids", 3, 2)


def test_a_factory_that_cannot_be_loaded_is_named(tmp_path, monkeypatch):
    install(tmp_path, monkeypatch, "broken", "lost = no_such_module_anywhere:factory")
    with pytest.raises(ValueError, match="'lost' cannot be loaded from no_such_module_anywhere:factory"):
        mixers.options("lost")
