"""The ways to spread a training over processes that are tested, and a way to start many runs."""

import importlib.util
import subprocess
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.integration.support import TORCHRUN, start

DRIVER = str(Path(__file__).with_name("ways_driver.py"))
ON_CPU = True  # whatever the machine has: tiny models, the same everywhere
BATCH = 8  # samples of a step, over all ranks


@dataclass(frozen=True)
class Parallelism:
    """Processes of a run, what it changes in the YAML file and the environment, and the package that it needs."""

    ranks: int = 1
    launcher: tuple[str, ...] = (sys.executable,)
    changes: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    needs: str = "torch"

    @property
    def is_installed(self) -> bool:
        return importlib.util.find_spec(self.needs) is not None

    def arguments(self) -> dict[str, Any]:
        return {"per_device_train_batch_size": BATCH // self.ranks, **self.changes}


def _zero(stage: int) -> Parallelism:
    auto = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping")
    config = {
        **dict.fromkeys(auto, "auto"),
        "zero_allow_untested_optimizer": True,
        "zero_optimization": {
            "stage": stage,
            "overlap_comm": False,
            "stage3_param_persistence_threshold": 0,
            "stage3_gather_16bit_weights_on_model_save": True,
        },
    }
    # accelerate hands a run to DeepSpeed only where it was not told to use the CPU; DeepSpeed is told instead
    cpu = {"DS_ACCELERATOR": "cpu", "LOCAL_SIZE": "2", "CUDA_VISIBLE_DEVICES": ""}
    return Parallelism(2, TORCHRUN, {"deepspeed": config, "use_cpu": None}, cpu, "deepspeed")


FSDP2 = {
    "fsdp": "full_shard auto_wrap",
    # sync_module_states is of version 1, but transformers 4 asks for a GPU for it in version 2 too.
    "fsdp_config": {
        "fsdp_version": 2,
        "transformer_layer_cls_to_wrap": "LlamaDecoderLayer",
        "sync_module_states": False,
    },
}
# Version 2 is in the file, and for transformers 4, which does not read it there, in the environment.
FSDP_ENVIRONMENT = {"COUNT_AS_DEVICES": "1", "FSDP_VERSION": "2"}
FULL_STATE = {"FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT"}  # as in the host's examples: its value head wants whole files
RAY = {"ray_num_workers": 1, "ray_init_kwargs": {"address": "local", "num_cpus": 10}}
PARALLELISMS = {
    "one process": Parallelism(),
    "DDP": Parallelism(2, TORCHRUN),
    "ZeRO-2": _zero(2),
    "ZeRO-3": _zero(3),
    "FSDP2": Parallelism(2, TORCHRUN, FSDP2, FSDP_ENVIRONMENT | FULL_STATE),
    "Ray": Parallelism(1, changes=RAY, environment={"USE_RAY": "1"}, needs="ray"),
}


def start_runs(parallelism: Parallelism, paths: Iterable[Path]) -> "subprocess.Popen[str]":
    """Train YAML files one after the other; beside each, `<name>.rank<n>.json` says how it went on each rank."""
    return start([*parallelism.launcher, DRIVER, *map(str, paths)], **parallelism.environment)
