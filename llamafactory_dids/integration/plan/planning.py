"""From a run's settings and data to the trainer's input: domains, tasks and mixer, and the files that record them."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ... import mixers
from ...artifacts.domain_map import DomainMap
from ...stages import ranks
from ...stages.bar import progress
from ...training.guards import is_labelled, not_labelled
from ...training.plan import MixingPlan
from ...training.schedule import check_repeats, samples_per_step, steps_planned, with_window
from ..data.source import DataSource
from ..domains.features import free_memory
from ..domains.nearest import nearest_task_samples
from ..domains.samples import TokenisedSamples
from ..host import objectives
from ..host.resume import check_set_up, window_of_checkpoint
from ..settings import ProxyHistory, Settings, settings_of
from ..strategy import make_mixer
from .probabilities import shares_of, sizes_of
from .provenance import write_about, write_config
from .proxy_runs import run_proxies
from .rows import rows_with_domains
from .schedules import schedule_of
from .streaming import streamed
from .tokens import mean_tokens


def mixing(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `get_dataset`, for its workflows. With a mixture of ours it also returns the trainer's plan."""

    @functools.wraps(host)
    def get_dataset(
        template: Any, model_args: Any, data_args: Any, training_args: Any, *args: Any, **kwargs: Any
    ) -> Any:
        settings = settings_of(data_args)
        if settings is None or not training_args.do_train:
            return host(template, model_args, data_args, training_args, *args, **kwargs)
        return make_plan(DataSource(settings, host, template, model_args, data_args, training_args, *args, **kwargs))

    return get_dataset


def make_plan(source: DataSource) -> dict[str, Any]:
    """The host's dataset module, with a domain for each training row, and the plan under `mixing`."""
    settings = source.settings
    tasks = _tasks(source)
    if source.streams:
        module, domain_map = streamed(source)
        domains_N, sizes_D = np.zeros(0, dtype=np.int64), domain_map.sizes() if len(domain_map.keys_N) else None
        samples = None  # a stream has no samples at hand
    else:
        module, domain_map, domains_N, samples = rows_with_domains(source)
        sizes_D = np.bincount(domains_N, minlength=len(domain_map.names))
    tokens_D = None
    if settings.config.dids_share_of == "tokens":
        tokens_D = mean_tokens(module["train_dataset"], domains_N, len(domain_map.names))
        sizes_D = None if sizes_D is None else sizes_D * tokens_D

    settings = source.settings = _with_window(source, len(domains_N))
    mixer_after = functools.partial(_mixer, source, domain_map, samples, sizes_D)
    if settings.history is None:
        history, mixer = run_proxies(source, domain_map, tasks, mixer_after)
    else:  # this run is a proxy run
        history, mixer = settings.history, mixer_after(settings.history)
    if source.kept:  # a model kept for features that were then found in the cache
        source.kept.clear()
        free_memory(source.training_args.device)
    plan = MixingPlan(
        strategy=settings.strategy,
        config=settings.config,
        mixer=mixer,
        domain_map=domain_map,
        domains_N=domains_N,
        tokens_D=tokens_D,
        tasks=tasks if mixer.needs.tasks else {},
        folder=Path(source.training_args.output_dir) / "dids",
        seed=settings.seed,
        streamed=source.streams,
        shuffled=not settings.finetuning_args.disable_shuffling,
        make_objective=objectives.of_trainer,
        clock=source.clock,
        reference=history.reference,
    )
    check_set_up(plan, source.training_args)
    if ranks.world()[0] == 0:
        write_config(plan, settings)
        write_about(plan, source.training_args)
    return {**module, "mixing": plan}


def _with_window(source: DataSource, num_rows: int) -> Settings:
    """The settings with the window between updates: the value set, the resumed run's, or one by the run's length."""
    settings, training_args = source.settings, source.training_args
    config = settings.config
    if config.dids_update_samples is None:
        config = replace(config, dids_update_samples=window_of_checkpoint(training_args))
    per_step = samples_per_step(training_args)
    steps = steps_planned(training_args, num_rows, per_step)
    check_repeats(config, num_rows, steps, per_step)
    return replace(settings, config=with_window(config, steps, per_step))


def _tasks(source: DataSource) -> dict[str, Any]:
    """The observed samples of each task; empty unless the mixer, or a proxy run's mixer, may need tasks."""
    settings = source.settings
    needs = settings.needs
    if not needs.tasks and (needs.proxy_run is None or not settings.tasks):
        return {}
    found = {}
    with progress("tasks", len(settings.tasks), of="task") as advance:
        for name in settings.tasks:
            found[name] = source.task(name)
            if not any(map(is_labelled, found[name])):
                raise not_labelled("dids_tasks", name)
            advance(1)
    return found


def _mixer(
    source: DataSource,
    domain_map: DomainMap,
    samples: Callable[[], TokenisedSamples] | None,
    sizes_D: NDArray[Any] | None,
    history: ProxyHistory,
) -> mixers.Mixer:
    settings = source.settings
    given: dict[str, Any] = {"sizes_D": sizes_D, "proxy_runs": history.records}
    if settings.needs.task_samples and samples is not None:
        with source.clock.on("importance_seconds"):
            given["task_samples_TD"] = nearest_task_samples(source, samples(), domain_map)
    config = settings.config
    if config.dids_probs is not None or config.dids_schedule is not None:
        sizes = sizes_of(domain_map, source.data_args.dataset, sizes_D)
        if config.dids_probs is not None:
            given["probabilities_D"] = shares_of("dids_probs", config.dids_probs, sizes)
        if config.dids_schedule is not None:
            given |= schedule_of(config.dids_schedule, sizes)
    return make_mixer(settings.strategy, config, len(domain_map.names), len(settings.tasks), **given)
