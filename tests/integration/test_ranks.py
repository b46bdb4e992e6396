"""Two processes (gloo, on the CPU) do together what one does alone."""

import json
from pathlib import Path

import pytest

from tests.integration.support import (
    arguments,
    examples,
    finish_well,
    read_lines,
    start,
    train,
    write_dataset,
    write_yaml,
)

pytestmark = pytest.mark.integration

DRIVER = str(Path(__file__).with_name("rank_driver.py"))
TORCHRUN = ["torchrun", "--standalone", "--nproc-per-node", "2"]


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    """One process with the global batch of the two."""
    return train(arguments(world, tmp_path_factory.mktemp("alone")))


@pytest.fixture(scope="module")
def together(world, tmp_path_factory):
    """Folders of two runs of two ranks: of the host's own launcher, and of the driver that looks into each rank."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("launcher", "driver")}
    paths = {
        name: str(write_yaml(folder / "run.yaml", arguments(world, folder, per_device_train_batch_size=4)))
        for name, folder in folders.items()
    }
    launcher = start(["llamafactory-cli", "train", paths["launcher"]], FORCE_TORCHRUN="1", NPROC_PER_NODE="2")
    driver = start([*TORCHRUN, DRIVER, paths["driver"], str(folders["driver"])])
    for process in (launcher, driver):
        finish_well(process)
    return folders


def timeless(folder):
    lines = read_lines(folder / "out" / "dids" / "mixture.jsonl")
    return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]


def test_both_ranks_have_the_same_probabilities_at_each_update(together):
    ranks = [json.loads((together["driver"] / f"rank{rank}.json").read_text()) for rank in (0, 1)]
    assert ranks[0] == ranks[1]
    assert len(ranks[0]["history"]) == 6


def test_log_is_that_of_the_ranks(together):
    history = json.loads((together["driver"] / "rank0.json").read_text())["history"]
    logged = [
        [line["applies_from_sample"], list(line["probabilities"].values())] for line in timeless(together["driver"])
    ]
    assert logged[:-1] == history and logged[-1][1] == history[-1][1]


def test_the_hosts_launcher_gives_the_same_run(together):
    assert timeless(together["launcher"]) == timeless(together["driver"])


def test_two_ranks_give_the_probabilities_of_one_with_the_same_global_batch(together, alone):
    pair, single = timeless(together["launcher"]), alone.lines
    assert [line["samples_drawn"] for line in pair] == [line["samples_drawn"] for line in single]
    for ours, theirs in zip(pair, single, strict=True):
        assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
        assert ours["task_loss"] == pytest.approx(theirs["task_loss"], abs=1e-4)


def test_two_ranks_make_the_gradient_store_and_map_of_one(world, tmp_path):
    write_dataset(tmp_path / "data", "sums", examples("sums", 1100, seed=7))  # more than a part of the store
    write_dataset(tmp_path / "data", "pairs", examples("pairs", 100, seed=8))
    changes = {"dataset_dir": str(tmp_path / "data"), "dataset": "sums,pairs", "dids_tasks": "pairs"}
    commands = {"one": ["llamafactory-dids"], "two": [*TORCHRUN, "-m", "llamafactory_dids"]}
    processes = []
    for name, command in commands.items():
        path = write_yaml(tmp_path / name / "run.yaml", arguments(world, tmp_path / name, **changes))
        processes.append(start([*command, "cluster", str(path)]))
    for process in processes:
        finish_well(process)
    one, two = (_contents(tmp_path / name / "cache") for name in commands)
    assert sum(Path(name).match("part-*.npy") for name in one) == 2
    assert one.keys() == two.keys()
    assert [name for name in one if one[name] != two[name]] == []


def _contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_cache_that_another_run_finishes_between_two_ranks_looks_makes_none_wait_for_ever(alone, world, tmp_path):
    path = write_yaml(tmp_path / "run.yaml", arguments(world, tmp_path))
    finished, cache = alone.folder.parent / "cache", tmp_path / "cache"
    driver = str(Path(__file__).with_name("late_cache_driver.py"))
    finish_well(start([*TORCHRUN, driver, str(path), str(finished), str(cache)]))
    name = "domains.json"
    assert [p.read_bytes() for p in cache.rglob(name)] == [p.read_bytes() for p in finished.rglob(name)]
