"""Without a `mix_strategy` of ours, LLaMA-Factory is as it was, byte for byte."""

import json
import sys

import pytest

from tests.integration.support import TASKS, arguments, finish_well, read_lines, start, without_mixture, write_yaml

pytestmark = pytest.mark.integration

TIMES = {"elapsed_time", "remaining_time"}


@pytest.fixture(scope="module")
def both(world, tmp_path_factory):
    """The output folders of one YAML, with the plugin on and off."""
    evaluation = {"do_eval": True, "eval_dataset": ",".join(TASKS), "save_strategy": "steps", "save_steps": 12}
    folders, processes = {}, {}
    for switch in ("1", "0"):
        folder = tmp_path_factory.mktemp(f"concat_{switch}")
        values = without_mixture(arguments(world, folder, **evaluation))
        path = write_yaml(folder / "run.yaml", values | {"output_dir": "out", "logging_steps": 1})
        command = ["llamafactory-cli", "train", str(path)]
        processes[switch] = start(command, folder=folder, LLAMAFACTORY_DIDS=switch)
        folders[switch] = folder / "out"
    for process in processes.values():
        finish_well(process)
    return folders["1"], folders["0"]


def test_logged_losses_are_the_same_bytes(both):
    on, off = ([_without_times(line) for line in read_lines(folder / "trainer_log.jsonl")] for folder in both)
    assert on == off
    assert sum("loss" in line for line in on) == 24


def _without_times(line):
    return json.dumps({key: value for key, value in line.items() if key not in TIMES})


def test_trainer_state_is_the_same_but_for_the_clock(both):
    on, off = (json.loads((folder / "trainer_state.json").read_text()) for folder in both)
    histories = [
        [{k: v for k, v in line.items() if not k.endswith(("runtime", "per_second"))} for line in state["log_history"]]
        for state in (on, off)
    ]
    assert histories[0] == histories[1] and len(histories[0]) >= 24


@pytest.mark.parametrize("name", ["model.safetensors", "checkpoint-12/model.safetensors", "checkpoint-12/optimizer.pt"])
def test_weights_are_the_same_bytes(both, name):
    on, off = ((folder / name).read_bytes() for folder in both)
    assert on == off


def test_the_same_files_are_left_behind(both):
    on, off = (sorted(str(p.relative_to(folder)) for p in folder.rglob("*")) for folder in both)
    assert on == off
    assert "dids" not in on


def test_a_python_that_has_nothing_to_do_with_the_host_loads_only_the_finder():
    code = "import sys; print(sorted(name for name in sys.modules if name.startswith('llamafactory')))"
    assert finish_well(start([sys.executable, "-c", code])).strip() == "['llamafactory_dids_activate']"
