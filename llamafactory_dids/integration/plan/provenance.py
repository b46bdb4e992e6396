"""A run's `config.yaml` (every key with its final value, versions, seeds) and `run.json` (when and where it ran)."""

import dataclasses
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from ... import __version__
from ...artifacts.run_about import command, commits, hardware, save_about
from ...artifacts.run_config import save_config
from ...mixers.base import Mixer
from ...training.plan import MixingPlan
from ..settings import Settings
from ..strategy import option_key

PACKAGES = (
    *("llamafactory", "torch", "transformers", "datasets", "accelerate", "peft", "numpy", "scipy"),
    *("faiss-gpu", "faiss-cpu", "sentence-transformers"),
)


def versions() -> dict[str, str]:
    """Versions of the packages that affect a result. Packages that are not installed are left out."""
    found = {"llamafactory-dids": __version__}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def write_config(plan: MixingPlan, settings: Settings) -> None:
    """Write `config.yaml` into the run's folder."""
    arguments = final_arguments(settings, plan.domain_map.inputs, plan.mixer)
    save_config(plan.folder / "config.yaml", arguments, {"versions": versions()})


def write_about(plan: MixingPlan, training_args: Any) -> None:
    """Write `run.json` into the run's folder."""
    kind = None if training_args.use_cpu else torch.accelerator.current_accelerator(check_available=True)
    devices = []
    if kind is not None:
        name_of = getattr(torch.get_device_module(kind), "get_device_name", lambda _number: kind.type)
        devices = [name_of(number) for number in range(torch.accelerator.device_count())]
    found = {
        "command": command(_words()),
        "hardware": hardware(devices),
        "processes": int(training_args.world_size),
        "is_updated": plan.mixer.needs.measures,
        "commits": commits(Path(__file__).parent),
        "versions": versions(),
    }
    save_about(plan.folder, found, resumed=bool(training_args.resume_from_checkpoint))


def _words() -> list[str]:
    """The words of this process's command line. The host's own command removes its `train`, so it is put back."""
    program, *words = sys.argv
    given = Path(program).name == "llamafactory-cli" and words[:1] != ["train"]
    return [program, *(["train"] if given else []), *words]


def final_arguments(settings: Settings, map_inputs: dict[str, Any], mixer: Mixer) -> dict[str, Any]:
    """The run's arguments with the final value of every `dids_*` key, the mixer's options included. Unset keys are left
    out.

    Keys of the clustering have the values that the map was made with, which may not be the run's for a given map.
    """
    final = dataclasses.asdict(settings.config)
    final |= {key: value for key, value in map_inputs.items() if key in final}
    final["dids_seed"] = settings.seed
    final["dids_tasks"] = ",".join(settings.tasks) or None
    for name, value in getattr(mixer, "options", {}).items():
        if key := option_key(settings.strategy, name):
            final[key] = value
    given = {key: value for key, value in settings.arguments.items() if not key.startswith("dids_")}
    return given | {key: value for key, value in final.items() if value is not None}
