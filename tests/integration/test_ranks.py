"""Two processes (gloo, on the CPU) do together what one does alone."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from llamafactory_dids.artifacts.mixture_log import MixtureLog
from tests.integration.support import (
    TORCHRUN,
    Run,
    arguments,
    examples,
    finish_well,
    module_of,
    same_domains,
    start,
    timeless,
    train,
    write_dataset,
    write_yaml,
)
from tests.integration.test_frozen import EXACT, FROZEN, Drawn, assert_fresh

pytestmark = pytest.mark.integration

HALF = {"per_device_train_batch_size": 4}  # of the batch of one process
DOREMI = {"mix_strategy": "doremi", "learning_rate": 1e-3}


@pytest.fixture(scope="module")
def together(world, finished, tmp_path_factory):
    """The folder of runs of two ranks: of the host's own launcher, and of the driver that looks into each rank."""
    folder = tmp_path_factory.mktemp("together")
    runs = {
        "launcher": HALF,
        "driver": HALF,
        "frozen": FROZEN | {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2},
        "doremi": DOREMI | HALF | same_domains(finished),
    }
    launched, *driven = (
        str(write_yaml(folder / f"{name}.yaml", arguments(world, folder / name, **changes)))
        for name, changes in runs.items()
    )
    launcher = start(["llamafactory-cli", "train", launched], FORCE_TORCHRUN="1", NPROC_PER_NODE="2")
    driver = start([*TORCHRUN, str(Path(__file__).with_name("rank_driver.py")), *driven])
    for process in (launcher, driver):
        finish_well(process)
    return folder


def lines_of(together, name):
    return timeless(Run(together / name / "out", None))


def of_both_ranks(together, name):
    """What the driver found in the first rank, which is what it found in the second."""
    first, second = (json.loads((together / f"{name}.rank{rank}.json").read_text()) for rank in (0, 1))
    assert first == second
    return first


def test_both_ranks_have_the_same_probabilities_at_each_update_as_the_log(together):
    history = of_both_ranks(together, "driver")["history"]
    assert len(history) == 6
    lines = lines_of(together, "driver")
    logged = [[line["applies_from_sample"], list(line["probabilities"].values())] for line in lines]
    assert logged[:-1] == history and logged[-1][1] == history[-1][1]


def test_the_hosts_launcher_gives_the_same_run(together):
    assert lines_of(together, "launcher") == lines_of(together, "driver")


def test_two_ranks_give_the_probabilities_of_one_with_the_same_global_batch(together, finished):
    pair, single = lines_of(together, "launcher"), finished.lines
    assert [line["samples_drawn"] for line in pair] == [line["samples_drawn"] for line in single]
    for ours, theirs in zip(pair, single, strict=True):
        assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
        assert ours["task_loss"] == pytest.approx(theirs["task_loss"], abs=1e-4)


def test_in_run_impact_of_two_ranks_is_what_the_fresh_gradients_of_the_drawn_samples_give(together, world, tmp_path):
    alone = train(arguments(world, tmp_path, **FROZEN))
    history = of_both_ranks(together, "frozen")["history"]
    drawn = Drawn(alone.trainer, [(at, np.array(p)) for at, p in history])
    for rank in (0, 1):
        windows = torch.load(together / f"frozen.rank{rank}.pt", weights_only=False)
        assert len(windows) == 2
        assert_fresh(windows, drawn, EXACT)


def test_two_ranks_make_the_proxy_run_together(together, world, finished, tmp_path):
    history = of_both_ranks(together, "doremi")["history"]
    alone = train(arguments(world, tmp_path, **DOREMI, **same_domains(finished)))
    log, expected = (
        MixtureLog(folder / "out" / "dids" / "proxy_runs" / "proxy.jsonl").record()
        for folder in (together / "doremi", alone.folder.parent)
    )
    assert log.samples_U.tolist() == [0, 32, 64, 96, 128, 160, 192]
    assert history[0][1] == pytest.approx(list(log.mean().values()))
    np.testing.assert_allclose(expected.probabilities_UD, log.probabilities_UD, atol=1e-4)


# --- domains -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clustered(world, finished, tmp_path_factory):
    """The folder of two runs whose domains two ranks made, and what the first is of."""
    folder = tmp_path_factory.mktemp("clustered")
    write_dataset(folder / "data", "sums", examples("sums", 1100, seed=7))  # more than a part of the store
    write_dataset(folder / "data", "pairs", examples("pairs", 100, seed=8))
    changes = {"dataset_dir": str(folder / "data"), "dataset": "sums,pairs", "dids_tasks": "pairs"}
    plain = write_yaml(folder / "plain.yaml", arguments(world, folder / "plain", **changes))
    late = write_yaml(folder / "late.yaml", arguments(world, folder / "late"))
    places = (plain, late, finished.folder.parent / "cache", folder / "late" / "cache")
    finish_well(start([*TORCHRUN, str(Path(__file__).with_name("cluster_driver.py")), *map(str, places)]))
    return folder, changes


def test_two_ranks_make_the_gradient_store_and_map_of_one(clustered, world, tmp_path):
    folder, changes = clustered
    module_of(arguments(world, tmp_path, dids_init="uniform", **changes))
    one, two = (_contents(place / "cache") for place in (tmp_path, folder / "plain"))
    assert sum(Path(name).match("part-*.npy") for name in one) == 2
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


def _contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cache_that_another_run_finishes_between_two_ranks_looks_makes_none_wait_for_ever(clustered, finished):
    folders = (clustered[0] / "late" / "cache", finished.folder.parent / "cache")
    made, expected = ([path.read_bytes() for path in folder.rglob("domains.json")] for folder in folders)
    assert made == expected
