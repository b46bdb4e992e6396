"""The dry run: each configuration through the host's and the plugin's own checks, with stand-ins for what is not here.

A stand-in is a data set of one example, a model's configuration without weights, a mixture log of one line. What a
machine of the paper's size has and this one has not (GPUs, DeepSpeed, the models, the data, vLLM) is listed apart, as
missing.
"""

import contextlib
import importlib.util
import io
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file

from llamafactory_dids.artifacts.domain_map import DomainMap, save_map
from llamafactory_dids.config import split_list
from llamafactory_dids.errors import DidsError

from .recipe import GPUS, ROOT, Recipe, Step

BATCH = 128  # samples a step (Appendix B.4)
EXAMPLE = {"instruction": "Question", "input": "", "output": "Answer"}
SMALL = {
    "hidden_size": 64,
    "intermediate_size": 64,
    "num_attention_heads": 4,
    "num_hidden_layers": 10,
    "vocab_size": 64,
}
LISTS = ("dataset", "dids_tasks")


class StandIns:
    """A folder with stand-ins, filled as configurations name what they need."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.info: dict[str, Any] = {}
        (folder / "data").mkdir(parents=True, exist_ok=True)

    def config(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The same configuration, naming stand-ins, on a CPU and without DeepSpeed (whose file is looked at apart)."""
        for name in (name for key in LISTS for name in split_list(values.get(key))):
            self._dataset(name)
        changed = {"dataset_dir": str(self.folder / "data"), "use_cpu": True, "output_dir": str(self.folder / "output")}
        for key in ("model_name_or_path", "dids_proxy_model"):
            if key in values:
                changed[key] = self._model(str(values[key]))
        if str(values.get("dids_probs", "")).endswith(".jsonl"):
            changed["dids_probs"] = self._log()
        if values.get("dids_domains", "cluster") not in ("cluster", "source"):
            changed["dids_domains"] = self._map()
        if values.get("dids_cluster_features") == "semantic":
            changed["dids_semantic_model"] = self._encoder()
        return {key: value for key, value in values.items() if key != "deepspeed"} | changed

    def _dataset(self, name: str) -> None:
        if name not in self.info:
            (self.folder / "data" / f"{name}.json").write_text(json.dumps([EXAMPLE]), encoding="utf-8")
            self.info[name] = {"file_name": f"{name}.json"}
            (self.folder / "data" / "dataset_info.json").write_text(json.dumps(self.info), encoding="utf-8")

    def _model(self, name: str) -> str:
        from transformers import LlamaConfig

        folder = self.folder / "models" / name.replace("/", "_")
        if not folder.exists():
            LlamaConfig(**SMALL).save_pretrained(folder)
            save_file({}, folder / "model.safetensors")  # that they are there is looked at, and no more
            (folder / "tokenizer.json").write_text("{}")
        return str(folder)

    def _map(self) -> str:
        save_map(DomainMap(("a",), ["key"], ["a"], np.zeros(1, dtype=np.int64)), self.folder)
        return str(self.folder)

    def _log(self) -> str:
        path = self.folder / "mixture.jsonl"
        path.write_text(json.dumps({"samples_seen": 0, "probabilities": {"a": 1.0}, "task_loss": {}}) + "\n")
        return str(path)

    def _encoder(self) -> str:
        folder = self.folder / "encoder"
        folder.mkdir(exist_ok=True)
        (folder / "modules.json").write_text("[]")
        return str(folder)


def problems(recipe: Recipe, stand_ins: StandIns) -> list[str]:
    """What is wrong with a run's steps; nothing if all of them would start."""
    found = []
    for step in recipe.steps:
        where = f"{recipe.run} on {recipe.base}, {step.what}"
        found += [
            f"{where}: {problem}" for problem in (_of_config(step, stand_ins) if step.config else _of_scores(step))
        ]
    return found


def _of_config(step: Step, stand_ins: StandIns) -> list[str]:
    values = dict(step.config or {})
    found = []
    batch = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] * GPUS
    if batch != BATCH:
        found.append(f"a step has {batch} samples on {GPUS} GPUs, allowed: {BATCH}")
    if (path := values.get("deepspeed")) and not (ROOT / path).exists():
        found.append(f"deepspeed: got {path!r}, allowed: a file that is there")
    try:
        with _quiet():
            _parse(stand_ins.config(values))
    except (DidsError, ValueError, OSError, SystemExit) as error:
        found.append(" ".join(str(error).split()))
    return found


def _parse(values: dict[str, Any]) -> None:
    """The host's arguments with the plugin's checks. A host that leaves the process at a key that it does not know says
    which on its output."""
    import llamafactory_dids_activate

    llamafactory_dids_activate.activate()
    from llamafactory.data.template import TEMPLATES
    from llamafactory.train import tuner

    if (template := values.get("template")) not in TEMPLATES:  # the host would look once its data is loaded
        raise DidsError(f"template: got {template!r}, allowed: a name of LLaMA-Factory's templates")
    tuner.get_train_args(values)


def _of_scores(step: Step) -> list[str]:
    from . import score

    try:
        with _quiet():
            given = score.parser().parse_args([*step.command[2:]])
    except SystemExit as error:
        return [f"{' '.join(step.command)}: {error}"]
    unknown = [task for task in split_list(given.tasks) if task not in score.HARNESS]
    return [f"--tasks: got {name!r}, allowed: {', '.join(score.HARNESS)}" for name in unknown]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    logging.disable(logging.WARNING)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logging.disable(logging.NOTSET)


# --- what is missing here -------------------------------------------------------------------------------------


def missing(recipes: Sequence[Recipe]) -> list[str]:
    """What the runs need and this machine has not, each once."""
    import torch

    steps = [step for recipe in recipes for step in recipe.steps]
    configs = [step.config for step in steps if step.config is not None]
    found = {}
    if configs and (here := torch.cuda.device_count()) < GPUS:
        found[f"{GPUS} GPUs of 80 GB ({here} here)"] = None
    modules = {"deepspeed": any("deepspeed" in config for config in configs), "lm_eval": True}
    modules["sentence_transformers"] = any(config.get("dids_cluster_features") == "semantic" for config in configs)
    for name, needed in modules.items():
        if needed and importlib.util.find_spec(name) is None:
            found[f"the package {name}"] = None
    for folder, names in _missing_data(configs).items():
        found[f"{len(names)} data sets in {folder}, which prepare_data.py makes: {', '.join(names)}"] = None
    for config in configs:
        found |= dict.fromkeys(_missing_models(config))
    return list(found)


def _missing_data(configs: Sequence[Mapping[str, Any]]) -> dict[str, list[str]]:
    """By folder."""
    found: dict[str, dict[str, None]] = {}
    for config in configs:
        info = ROOT / str(config["dataset_dir"]) / "dataset_info.json"
        known = json.loads(info.read_text(encoding="utf-8")) if info.exists() else {}
        names = [name for key in LISTS for name in split_list(config.get(key)) if name not in known]
        found.setdefault(str(config["dataset_dir"]), {}).update(dict.fromkeys(names))
    return {folder: list(names) for folder, names in found.items() if names}


def _missing_models(config: Mapping[str, Any]) -> list[str]:
    from huggingface_hub import try_to_load_from_cache

    names = [str(config[key]) for key in ("model_name_or_path", "dids_proxy_model") if key in config]
    gone = [name for name in names if not Path(name).exists()]
    return [f"model {name}" for name in gone if not isinstance(try_to_load_from_cache(name, "config.json"), str)]
