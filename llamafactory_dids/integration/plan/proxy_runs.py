"""The proxy model's runs that an offline strategy asks for, made before the main run, by the host's own workflow.

A run is kept in the cache under the inputs that made it, and is not made again. An interrupted run resumes from its
last checkpoint. Its log is kept, and its token losses if the strategy wants them; its model is not.

    while the mixer asks for a run:  make it (or find it)  →  append its record  →  ask for the next mixer
"""

import dataclasses
import inspect
import json
import logging
import math
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ...artifacts.domain_map import DomainMap, save_map
from ...artifacts.files import check_same, fingerprint, read_json, write_json
from ...artifacts.mixture_log import MixtureLog
from ...artifacts.run_state import whole_checkpoints
from ...errors import DidsError
from ...mixers.base import Mixer, ProxyRun, RunRecord
from ...stages import ranks
from ...training.schedule import samples_per_step
from ..data.source import DataSource
from ..domains import proxy
from ..domains.features import free_memory
from ..domains.samples import tokens_digest
from ..host.randomness import undisturbed_randomness
from ..settings import ProxyHistory, Settings, cache_folder

logger = logging.getLogger(__name__)

# Keys that do not change a run's outcome. With another value of them, the same run is found in the cache.
NEUTRAL = (
    ("output_dir", "overwrite_output_dir", "overwrite_cache", "report_to", "run_name", "plot_loss", "disable_tqdm")
    + ("do_eval", "do_predict", "load_best_model_at_end", "resume_from_checkpoint", "cache_dir", "dataset_dir")
    + ("dids_cache_dir", "dids_domains", "preprocessing_num_workers", "model_name_or_path", "dids_proxy_model")
    + ("tokenized_path",)
)
NEUTRAL_STARTS = ("logging_", "save_", "eval_", "predict", "push_to_hub", "hub_", "dataloader_")

# Options to reset when the proxy trains in full: the host takes them for adapters or frozen layers alone.
RESET_FOR_FULL = {
    "loraplus_lr_ratio": None,
    "use_rslora": False,
    "use_dora": False,
    "pissa_init": False,
    "use_llama_pro": False,
}


def run_proxies(
    source: DataSource,
    domain_map: DomainMap,
    tasks: Mapping[str, Any],
    make_mixer: Callable[[ProxyHistory], Mixer],
) -> tuple[ProxyHistory, Mixer]:
    """Make, or find, each proxy run that the strategy asks for. Returns their history and the main run's mixer."""
    settings, history, before = source.settings, ProxyHistory(), ""
    while (run := (mixer := make_mixer(history)).needs.proxy_run) is not None:
        inputs = _inputs(run, source, domain_map, tasks, before)
        before = fingerprint(inputs)
        folder = cache_folder(settings.config) / "proxy_runs" / before
        if not ranks.decided_by_first((folder / "done.json").exists):
            _make(run, folder, inputs, source, domain_map, history)
        check_same(folder, read_json(ranks.wait_to_see(folder / "done.json")), inputs)
        logger.info("%s: using the %s run in %s", settings.strategy, run.name, folder)
        history = _with_record(history, run, folder / "dids", domain_map.names)
        _show_in(Path(source.training_args.output_dir) / "dids" / "proxy_runs", run, folder / "dids")
    return history, mixer


def _with_record(history: ProxyHistory, run: ProxyRun, folder: Path, names: tuple[str, ...]) -> ProxyHistory:
    found = MixtureLog(folder / "mixture.jsonl").record()
    if found.domain_names != names:
        raise DidsError(
            f"{folder}: the proxy run had the domains {list(found.domain_names)}, this one has {list(names)}; "
            "allowed: a proxy whose tokenizer leaves out the same samples"
        )
    record = RunRecord(found.samples_U, found.probabilities_UD, found.task_losses_UT)
    return ProxyHistory((*history.records, record), folder if run.keeps_losses else history.reference)


def _show_in(shown: Path, run: ProxyRun, folder: Path) -> None:
    """Copy the proxy run's log to the main run, which then needs no cache to be explained."""
    if ranks.world()[0] == 0:
        shown.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / "mixture.jsonl", shown / f"{run.name}.jsonl")


@undisturbed_randomness()
def _make(
    run: ProxyRun,
    folder: Path,
    inputs: dict[str, Any],
    source: DataSource,
    domain_map: DomainMap,
    history: ProxyHistory,
) -> None:
    from llamafactory.train import tuner  # not at the top: importing it registers this package

    ranks.done_by_first(lambda: save_map(domain_map, folder / "domains"))
    found = ranks.decided_by_first(lambda: [str(path) for path in whole_checkpoints(folder)][:1])
    checkpoint = Path(found[0]) if found else None
    how = f"goes on from {checkpoint}" if checkpoint else "begins"
    logger.info("%s: the %s run %s", source.settings.strategy, run.name, how)
    given = _arguments(run, source, folder, checkpoint)
    model_args, data_args, training_args, finetuning_args, generating_args = tuner.get_train_args(given)
    data_args.mixing = dataclasses.replace(data_args.mixing, history=history)
    workflow = getattr(tuner, f"run_{finetuning_args.stage}")
    extra = {"generating_args": generating_args} if "generating_args" in inspect.signature(workflow).parameters else {}
    workflow(model_args, data_args, training_args, finetuning_args, callbacks=[], **extra)
    ranks.wait_for_all()
    if ranks.world()[0] == 0:
        _forget_model(folder)
        write_json(folder / "done.json", inputs)
    ranks.wait_for_all()
    free_memory(training_args.device)


def _forget_model(folder: Path) -> None:
    """Delete the model's weights, which are large. Only the log and the losses are needed."""
    for path in folder.glob("checkpoint-*"):
        shutil.rmtree(path)
    for pattern in (*proxy.WEIGHT_FILES, "*.index.json"):
        for path in folder.glob(pattern):
            path.unlink()


def _arguments(run: ProxyRun, source: DataSource, folder: Path, checkpoint: Path | None) -> dict[str, Any] | list[str]:
    """The main run's arguments as given, with the changes for the proxy run."""
    settings, training_args = source.settings, source.training_args
    changes = {
        "output_dir": str(folder),
        "overwrite_output_dir": checkpoint is None,
        "resume_from_checkpoint": str(checkpoint) if checkpoint else None,
        "save_strategy": "steps",
        "save_steps": 0.1,  # share of all steps
        "save_total_limit": 2,
        "save_only_model": False,
        "eval_strategy": "no",
        "do_eval": False,
        "do_predict": False,
        "predict_with_generate": False,
        "load_best_model_at_end": False,
        "push_to_hub": False,
        "plot_loss": False,
        "report_to": "none",
        "tokenized_path": None,
        "dids_domains": str(folder / "domains"),
        "dids_proxy_model": None,  # the proxy is the model that trains
        "dids_tasks": ",".join(settings.tasks) or None,
        "dids_seed": settings.seed,
        "dids_update_samples": _window(run, settings, training_args),
    }
    if training_args.max_steps > 0:
        changes["max_steps"] = math.ceil(run.share * training_args.max_steps)
    else:
        changes["num_train_epochs"] = run.share * training_args.num_train_epochs
    if training_args.warmup_steps >= 1:
        changes["warmup_steps"] = round(run.share * training_args.warmup_steps)
    if not proxy.is_trained_model(settings, source.model_args):
        changes |= {
            "model_name_or_path": settings.config.dids_proxy_model,
            "finetuning_type": "full",
            **RESET_FOR_FULL,
            **proxy.RESET_FOR_ANOTHER_PROXY,
        }
    values = {key: value for key, value in (settings.arguments | changes).items() if value is not None}
    return [f"--{key}={_word(value)}" for key, value in values.items()] if settings.as_words else values


def _word(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value) if isinstance(value, dict | list) else str(value)


def _window(run: ProxyRun, settings: Settings, training_args: Any) -> int:
    """The window with as many updates as the main run has, and at least a step."""
    per_step = samples_per_step(training_args)
    return max(per_step, round(run.share * settings.config.dids_update_samples))


def _inputs(
    run: ProxyRun,
    source: DataSource,
    domain_map: DomainMap,
    tasks: Mapping[str, Any],
    before: str,
) -> dict[str, Any]:
    """All inputs that affect the results of a proxy run; `before` stands for the earlier runs."""
    settings = source.settings
    arguments = {
        key: value
        for key, value in settings.arguments.items()
        if key not in NEUTRAL and not key.startswith(NEUTRAL_STARTS)
    }
    return {
        "run": list(run),
        "before": before,
        "proxy": proxy.identity(settings, source.model_args),
        "arguments": json.loads(json.dumps(arguments, default=str)),
        "ranks": source.training_args.world_size,
        "seed": settings.seed,
        "domains": domain_map.digest(),
        "tasks": {name: tokens_digest(rows) for name, rows in tasks.items()},
    }
