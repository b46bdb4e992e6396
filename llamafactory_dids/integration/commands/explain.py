"""A run described in words before it starts. Its data is counted; its model is known by its configuration.

Computing is given as a share of the training's, by passes (core/computing.py). It has the right size, but is not a
measurement: lengths differ, and a device is not always busy.
"""

import copy
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...artifacts.domain_map import load_map
from ...config import FEW_UPDATES
from ...core.computing import gradient_passes, training_passes
from ...errors import DidsError, refuse
from ...stages.cluster import check_enough, number_for
from ...training.schedule import (
    check_repeats,
    check_window,
    samples_per_step,
    steps_planned,
    updates_planned,
    with_window,
)
from ..data.loading import counting
from ..domains.proxy import proxy_arguments
from ..domains.sizes import size_of
from ..errors import refusals
from ..plan.asked import asked_mixtures
from ..settings import Settings, cache_folder, settings_of

BYTES_PER_FEATURE, BYTES_PER_ROW = 2, 5  # float16; a norm and a mask
BYTES_PER_KEY = 40  # about, for a sample in domains.parquet
MANY_PASSES = 4  # passes over the data; more repetition helps little (Muennighoff et al. 2023)


@dataclass(frozen=True)
class Explanation:
    """Counts are samples unless a name says otherwise. `parameters` is None for a kind of model unknown to
    transformers.

    `costs` are shares of the training's computing: for `domains`, `updates` and `proxy_run`, each if there is a cost.
    """

    strategy: str
    sources: dict[str, int]
    num_domains: int
    domains_from: str
    mixtures: dict[str, dict[str, float]]  # shares of a fixed mixture or a schedule, by the point of the run
    share_of: str
    tasks: dict[str, int]
    processes: int
    samples_per_step: int
    steps: int
    training_samples: int
    update_samples: int
    num_updates: int
    updates_wanted: bool  # whether the strategy changes the mixture at all
    parameters: int | None
    proxy: str
    proxy_parameters: int | None  # if its gradients are features of the samples
    proxy_bytes: int  # of memory on each process, without activations
    costs: dict[str, float]
    proxy_run: str | None
    gradient_bytes: int
    disk_bytes: int
    cache: str
    output: str
    packing: bool
    window_is_set: bool  # by `dids_update_samples`, not by the run's length
    trained_tasks: tuple[str, ...]  # datasets that are both trained on and observed
    notes: tuple[str, ...] = ()  # warnings of the checks

    @property
    def passes_over_data(self) -> float:
        """The mean number of times that a sample is drawn."""
        return self.training_samples / max(1, sum(self.sources.values()))

    @property
    def cautions(self) -> list[tuple[str, dict[str, Any]]]:
        """Warnings before such a run is started: (kind, values for its text)."""
        found: list[tuple[str, dict[str, Any]]] = []
        if self.updates_wanted and self.num_updates < FEW_UPDATES:
            found.append(("few_updates", {"count": self.num_updates, "least": FEW_UPDATES}))
        found += [("trained_task", {"name": name}) for name in self.trained_tasks]
        if self.passes_over_data > MANY_PASSES:
            found.append(("repeated", {"times": round(self.passes_over_data, 1)}))
        return found + [("note", {"text": text}) for text in self.notes]

    @property
    def overhead(self) -> float:
        """Computing on top of the training's, as a share of it."""
        return sum(self.costs.values())

    def as_dict(self) -> dict[str, Any]:
        """All values for `--json`."""
        return asdict(self) | {"overhead": self.overhead, "cautions": self.cautions}


def explain(arguments: dict[str, Any], processes: int | None = None) -> Explanation:
    """Explain a YAML file's values, for a start on `processes` processes (default: one for each accelerator here).

    Raises DidsError if the run would be refused, or does not mix.
    """
    from llamafactory.train import tuner

    with refusals():  # of a strategy of the host's too
        model_args, data_args, training_args, finetuning_args, _ = tuner.get_train_args(arguments)
    settings = settings_of(data_args)
    if settings is None or not training_args.do_train:
        key, value = ("do_train", False) if settings is not None else ("mix_strategy", data_args.mix_strategy)
        raise DidsError(f"{key}: got {value!r}, allowed: a training with a mix_strategy of this plugin")
    if data_args.streaming:
        raise refuse("streaming", True, "false, since samples are counted (add streaming=false to the command)")
    ranks = processes or max(training_args.world_size, torch.accelerator.device_count(), 1)
    per_step = samples_per_step(training_args, ranks)
    sources = _count(data_args.dataset, model_args, data_args, training_args, finetuning_args.stage)
    num_samples = sum(sources.values())
    steps = steps_planned(training_args, num_samples, per_step)
    needs, config = settings.needs, with_window(settings.config, steps, per_step)
    check_window(config, per_step)
    check_repeats(config, num_samples, steps, per_step)
    if config.dids_domains == "cluster" and config.dids_num_domains is not None:
        check_enough(config.dids_num_domains, num_samples)
    tasks = _tasks(settings, model_args, data_args, training_args, finetuning_args.stage)
    num_domains, domains_from = _domains(settings, model_args, sources)
    num_updates = updates_planned(config, steps, per_step) if needs.measures else 0
    counts = (num_samples, sum(tasks.values()), num_domains, steps * per_step, num_updates)
    return Explanation(
        strategy=settings.strategy,
        sources=sources,
        num_domains=num_domains,
        domains_from=domains_from,
        mixtures=asked_mixtures(settings, sources),
        share_of=settings.config.dids_share_of,
        tasks=tasks,
        processes=ranks,
        samples_per_step=per_step,
        steps=steps,
        training_samples=steps * per_step,
        update_samples=config.dids_update_samples or 0,
        num_updates=num_updates,
        updates_wanted=needs.measures,
        cache=str(cache_folder(settings.config)),
        output=str(Path(training_args.output_dir) / "dids"),
        packing=bool(data_args.packing),
        window_is_set=settings.config.dids_update_samples is not None,
        trained_tasks=tuple(name for name in settings.tasks if name in sources),
        **_costs(settings, model_args, *counts),
    )


def _count(names: Any, model_args: Any, data_args: Any, training_args: Any, stage: str) -> dict[str, int]:
    """The number of samples of each dataset, as the host loads it. No example is read."""
    from llamafactory.data import loader

    data_args = copy.copy(data_args)
    data_args.preprocessing_num_workers = None  # starting workers takes longer than counting
    token = counting.set(True)
    try:
        parts = loader._get_merged_dataset(names, model_args, data_args, training_args, stage, True)
    finally:
        counting.reset(token)
    return {name: len(part) for name, part in parts.items()}


def _tasks(settings: Settings, *arguments: Any) -> dict[str, int]:
    """Number of observed samples of each task; empty if the strategy needs no tasks."""
    if not (settings.needs.tasks or settings.needs.task_samples):
        return {}
    found = _count(list(settings.tasks), *arguments)
    return {name: min(size, settings.config.dids_task_samples) for name, size in found.items()}


def _domains(settings: Settings, model_args: Any, sources: dict[str, int]) -> tuple[int, str]:
    config = settings.config
    if config.dids_domains == "source":
        return len(sources), "each dataset is one"
    if config.dids_domains != "cluster":
        return len(load_map(Path(config.dids_domains).expanduser()).names), f"the map {config.dids_domains}"
    where = "inside each dataset" if config.dids_cluster_scope == "source" else "over all datasets"
    if config.dids_cluster_features == "semantic":
        what = f"sentence embeddings ({config.dids_semantic_model})"
    else:
        what = f"gradients of {config.dids_proxy_model or model_args.model_name_or_path}"
    groups = len(sources) if config.dids_cluster_scope == "source" else 1
    number = config.dids_num_domains or number_for(sum(sources.values()), groups, config.dids_min_domain_size)
    return number, f"k-means {where}, on {what}"


def _costs(
    settings: Settings,
    model_args: Any,
    num_samples: int,
    observed: int,
    num_domains: int,
    training_samples: int,
    num_updates: int,
) -> dict[str, Any]:
    config, needs, share = settings.config, settings.needs, settings.config.dids_gradient_layers
    size = size_of(model_args, config.dids_gradient_layers)
    arguments, _ = proxy_arguments(settings, model_args)
    proxy = size_of(arguments, config.dids_gradient_layers)
    relative = proxy.parameters / size.parameters if proxy and size else 1.0
    makes_gradients = settings.makes_features and config.dids_cluster_features == "gradient"
    measured = observed if needs.tasks else 0  # else the tasks' samples have features alone
    per_update = gradient_passes(measured, share) if needs.impact else measured
    keeps_running = needs.gradients and config.dids_domain_gradients == "running"
    kept = len(settings.tasks) if needs.impact is not None and needs.impact.errors else num_domains  # P entries each
    if needs.gradients and not keeps_running:
        per_update += gradient_passes(num_domains * config.dids_fresh_samples, share)
    run, training = needs.proxy_run, training_passes(training_samples)
    passes = {
        "domains": gradient_passes(num_samples, share) * relative if makes_gradients else 0.0,
        "updates": num_updates * per_update + 2 * measured,  # the start and the end measure losses alone
        "proxy_run": run.share * training * relative if run else 0.0,
    }
    tracked = min(config.dids_tracked_entries, size.tracked if size else config.dids_tracked_entries)
    dim = config.dids_projection_dim if makes_gradients else 0
    return {
        "parameters": size.parameters if size else None,
        "proxy": arguments.model_name_or_path,
        "proxy_parameters": proxy.parameters if proxy and makes_gradients else None,
        "proxy_bytes": proxy.num_bytes if proxy and makes_gradients else 0,
        "costs": {what: count / training for what, count in passes.items() if count},
        "proxy_run": run.name if run else None,
        "gradient_bytes": kept * tracked * 4 if keeps_running else 0,
        "disk_bytes": num_samples * (dim * BYTES_PER_FEATURE + BYTES_PER_ROW * bool(dim) + BYTES_PER_KEY),
    }
