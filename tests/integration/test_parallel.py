"""However a run is spread over processes, it mixes like one process with the same global batch."""

import json

import pytest
import torch
import transformers

from tests.integration.parallel import FSDP2, PARALLELISMS, start_runs
from tests.integration.support import arguments, finish_well, read_lines, train, write_yaml

pytestmark = pytest.mark.integration

STEPS = {"max_steps": 12}
# One rank reads the weights, for which transformers 4 asks for a GPU.
LAZY = {"fsdp_config": FSDP2["fsdp_config"] | {"cpu_ram_efficient_loading": True, "sync_module_states": True}}
CAN_BE_LAZY = int(transformers.__version__.split(".")[0]) >= 5 or torch.cuda.is_available()
RUNS = {"plain": {}, "lora": {"finetuning_type": "lora", "lora_rank": 4}}
NAMES = [name for name, parallelism in PARALLELISMS.items() if name not in ("one process", "DDP")]  # see test_ranks.py


@pytest.fixture(scope="module")
def alone(world, tmp_path_factory):
    """The lines of one process."""
    return {
        name: train(arguments(world, tmp_path_factory.mktemp("alone"), **STEPS, **changes)).lines
        for name, changes in RUNS.items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_each_parallelism_gives_the_probabilities_of_one_process(name, alone, world, tmp_path):
    parallelism = PARALLELISMS[name]
    if not parallelism.is_installed:
        pytest.skip(f"{parallelism.needs} is not installed")
    runs = RUNS | ({"lazy": LAZY} if name == "FSDP2" and CAN_BE_LAZY else {})
    paths = {}
    for run, changes in runs.items():
        values = arguments(world, tmp_path / run, **STEPS, **parallelism.arguments() | changes)
        paths[run] = write_yaml(tmp_path / run / "run.yaml", values)
    finish_well(start_runs(parallelism, paths.values()))
    for run, path in paths.items():
        ranks = [json.loads(path.with_suffix(f".rank{rank}.json").read_text()) for rank in range(parallelism.ranks)]
        assert "error" not in ranks[0] and all(rank == ranks[0] for rank in ranks), ranks
        expected = alone["lora" if run == "lora" else "plain"]
        lines = read_lines(path.parent / "out" / "dids" / "mixture.jsonl")
        assert len(lines) == 4 and expected[-1]["probabilities"] != expected[0]["probabilities"]
        for ours, theirs in zip(lines, expected, strict=True):
            assert ours["probabilities"] == pytest.approx(theirs["probabilities"], abs=1e-5)
            assert ours["task_loss"] == pytest.approx(theirs["task_loss"], abs=1e-4)
