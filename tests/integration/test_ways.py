"""Each stage with each finetuning type and each parallelism trains with a moving mixture, or is refused in a line.

A few cells stand for all of them; `scripts/ways.py run` runs the whole and keeps the outcomes.
"""

import importlib.util
import json
import math
import os

import pytest
import torch

from scripts.ways import CELLS, PARALLELISMS, PROPERTY, STAGES, TYPES
from tests.integration import parallel
from tests.integration.parallel import start_runs
from tests.integration.preferences import make_preferences, preference_arguments
from tests.integration.support import arguments, finish, read_lines, write_yaml

pytestmark = [pytest.mark.integration, pytest.mark.slow]

LORA = {"finetuning_type": "lora", "lora_rank": 4, "learning_rate": 5e-2}
FINETUNING = {
    "full": {},
    "freeze": {"finetuning_type": "freeze", "freeze_trainable_layers": 1},
    "lora": LORA,
    "dora": LORA | {"use_dora": True},
    "rslora": LORA | {"use_rslora": True},
    "pissa": LORA | {"pissa_init": True, "pissa_iter": 4},
    "qlora": LORA | {"quantization_bit": 4},
}
REPRESENTATIVE = {
    ("sft", "lora", "DDP"),
    ("dpo", "full", "DDP"),
    ("ppo", "full", "DDP"),
    ("pt", "freeze", "FSDP2"),
    ("kto", "lora", "FSDP2"),
    ("rm", "full", "FSDP2"),
    ("rm", "full", "DDP"),
}
CHOSEN = [cell for cell in CELLS if os.environ.get("DIDS_ALL_WAYS") == "1" or cell in REPRESENTATIVE]
FEW = {"max_steps": 5, "dids_update_samples": 16, "dids_task_samples": 6, "dids_domains": "source"}
REFUSED = {  # what a cell is refused with, which stands for the first that fits
    **dict.fromkeys(
        [(stage, "pissa", None) for stage in ("dpo", "kto", "ppo")],
        "ValueError: Cannot use PiSSA for current training stage.",
    ),
    (None, "pissa", "ZeRO-3"): "ValueError: Please use scripts/pissa_init.py to initialize PiSSA in DeepSpeed ZeRO-3.",
    ("rm", None, "FSDP2"): "DidsError: fsdp: got 'version 2', allowed with mix_strategy dids: none in this stage",
    ("ppo", None, None): "DidsError: stage: got 'ppo', allowed with mix_strategy dids: pt, sft, dpo, kto, rm",
}


def refusal_of(cell):
    """The error that a cell is to be refused with."""
    fits = [line for key, line in REFUSED.items() if all(k in (None, c) for k, c in zip(key, cell, strict=True))]
    return fits[0] if fits else None


def values_of(cell, world, preferences, folder):
    stage, kind, name = cell
    changes = FINETUNING[kind] | parallel.PARALLELISMS[name].arguments() | FEW | {"stage": stage}
    if stage == "rm":  # under DDP the host's own reward training of a full model fails with reentrant checkpointing
        changes |= {"use_reentrant_gc": False}
    if stage in ("dpo", "kto", "rm"):
        return preference_arguments(world, preferences, folder, **changes)
    if stage == "ppo":
        changes |= {"reward_model": str(world.model), "reward_model_type": "full"}
    if stage == "pt":
        changes |= {"packing": False}
    return arguments(world, folder, **changes)


@pytest.fixture(scope="module")
def folder_of(request, world, tmp_path_factory):
    """The folder of a cell's finished run; all selected cells of a parallelism are run by the same processes."""
    parameters = [getattr(item, "callspec", None) for item in request.session.items if item.module is request.module]
    selected = [one.params["cell"] for one in parameters if one is not None]
    preferences = make_preferences(world, tmp_path_factory.mktemp("preferences") / "data")
    folders = {}

    def run_all(name):
        paths = []
        for cell in selected:
            if cell[2] == name:
                folders[cell] = tmp_path_factory.mktemp("-".join(cell).replace(" ", "_"))
                values = values_of(cell, world, preferences, folders[cell])
                paths.append(write_yaml(folders[cell] / "run.yaml", values))
        process = start_runs(parallel.PARALLELISMS[name], paths)
        _, _, errors = finish(process, timeout=60 + 120 * len(paths))
        for path in paths:
            (path.parent / "stderr").write_text(errors[-4000:])

    def of(cell):
        if cell not in folders:
            run_all(cell[2])
        return folders[cell]

    return of


@pytest.mark.parametrize("cell", CHOSEN, ids="-".join)
def test_a_way_to_train_moves_the_mixture_or_is_refused(cell, folder_of, record_property):
    parallelism = parallel.PARALLELISMS[cell[2]]
    if not parallelism.is_installed:
        pytest.skip(f"{parallelism.needs} is not installed")
    if cell[1] == "qlora" and importlib.util.find_spec("bitsandbytes") is None:
        pytest.skip("bitsandbytes is not installed")
    folder = folder_of(cell)
    files = [folder / f"run.rank{rank}.json" for rank in range(parallelism.ranks)]
    assert all(file.exists() for file in files), (folder / "stderr").read_text()
    ranks = [json.loads(file.read_text()) for file in files]
    if expected := refusal_of(cell):
        assert [rank.get("error", "").startswith(expected) for rank in ranks] == [True] * len(ranks), ranks
        outcome = "refused with: " + ranks[0]["error"].partition(": ")[2]
    else:
        assert [rank["error"] for rank in ranks if "error" in rank] == []
        assert all(rank == ranks[0] for rank in ranks)
        check_lines(read_lines(folder / "out" / "dids" / "mixture.jsonl"))
        outcome = f"tested on {'GPU' if torch.cuda.is_available() and not parallel.ON_CPU else 'CPU'}"
    record_property(PROPERTY, json.dumps([*cell, outcome]))


def check_lines(lines):
    """Two updates, each by impacts that are numbers; so few samples need not tell the domains apart."""
    assert [line["samples_seen"] for line in lines] == [0, 16, 32, 40]
    for line in lines[1:-1]:
        impacts = [value for row in line["impact"].values() for value in row.values()]
        assert all(map(math.isfinite, impacts)) and any(impacts)
    assert all(math.isfinite(loss) for line in lines for loss in line["task_loss"].values())


def test_the_cells_are_those_that_can_be_run():
    assert set(TYPES) == set(FINETUNING) and set(PARALLELISMS) == set(parallel.PARALLELISMS)
    assert {cell for cell in CELLS if cell in REPRESENTATIVE} == REPRESENTATIVE and len(STAGES) == 6
