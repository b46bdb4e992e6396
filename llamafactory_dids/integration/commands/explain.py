"""What a run would do, said in words before it does it: its data is counted, its model known by its configuration.

Computing is counted in forward passes of the trained model over a training sample; a backward pass costs two more. So
the figures are of the right size and not a measurement: lengths differ, and a device is not always busy.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ...artifacts.domain_map import load_map
from ...errors import DidsError, refuse
from ...stages.cluster import number_for
from ...training.schedule import samples_per_step, updates_planned
from ..domains.proxy import proxy_arguments
from ..domains.sizes import size_of
from ..plan.asked import asked_mixtures
from ..settings import Settings, cache_folder, settings_of

FORWARD, BACKWARD = 1.0, 2.0
BYTES_PER_FEATURE, BYTES_PER_ROW = 2, 5  # float16; a norm and a mask
BYTES_PER_KEY = 40  # of a sample in domains.parquet, about


@dataclass(frozen=True)
class Explanation:
    """Counts of samples unless a name says otherwise; `*_passes` are forward passes of the trained model.

    `parameters` is None where transformers does not know a model of that configuration.
    """

    strategy: str
    sources: dict[str, int]
    num_domains: int
    domains_from: str
    mixtures: dict[str, dict[str, float]]  # what a fixed mixture or a schedule asks for, by the point of the run
    share_of: str
    tasks: dict[str, int]
    processes: int
    samples_per_step: int
    steps: int
    training_samples: int
    update_samples: int
    num_updates: int
    parameters: int | None
    proxy: str
    proxy_parameters: int | None  # where its gradients are clustered
    proxy_bytes: int  # of memory on each process, its activations apart
    training_passes: float
    domain_passes: float
    update_passes: float
    proxy_run: str | None
    proxy_run_passes: float
    gradient_bytes: int
    disk_bytes: int
    cache: str
    output: str
    packing: bool

    @property
    def overhead(self) -> float:
        """Computing beside the training's own, as a share of it."""
        return (self.domain_passes + self.update_passes + self.proxy_run_passes) / self.training_passes

    def as_dict(self) -> dict[str, Any]:
        """For a program to read."""
        return asdict(self) | {"overhead": self.overhead}


def explain(processes: int | None = None) -> Explanation:
    """Explain the YAML file in `sys.argv`, as if started on so many processes (default: one for each accelerator here).

    Raises DidsError where the run would be refused, or does not mix.
    """
    from llamafactory.train import tuner

    try:
        model_args, data_args, training_args, finetuning_args, _ = tuner.get_train_args()
    except DidsError:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise DidsError(f"LLaMA-Factory refuses these arguments: {error}") from error
    settings = settings_of(data_args)
    if settings is None or not training_args.do_train:
        key, value = ("do_train", False) if settings is not None else ("mix_strategy", data_args.mix_strategy)
        raise DidsError(f"{key}: got {value!r}, allowed: a training with a mix_strategy of this plugin")
    if data_args.streaming:
        raise refuse("streaming", True, "false, since samples are counted (add streaming=false to the command)")
    ranks = processes or max(training_args.world_size, torch.accelerator.device_count(), 1)
    per_step = samples_per_step(training_args, ranks)
    sources = _count(data_args.dataset, model_args, data_args, training_args, finetuning_args.stage)
    steps = _steps(training_args, sum(sources.values()), per_step)
    needs = settings.needs
    tasks = _tasks(settings, model_args, data_args, training_args, finetuning_args.stage)
    num_domains, domains_from = _domains(settings, model_args, sources)
    num_updates = updates_planned(settings.config, steps, per_step) if needs.measures else 0
    costs = _costs(settings, model_args, sources, tasks, num_domains, steps * per_step, num_updates)
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
        update_samples=settings.config.dids_update_samples,
        num_updates=num_updates,
        cache=str(cache_folder(settings.config)),
        output=str(Path(training_args.output_dir) / "dids"),
        packing=bool(data_args.packing),
        **costs,
    )


def _count(names: Any, model_args: Any, data_args: Any, training_args: Any, stage: str) -> dict[str, int]:
    """Samples of each dataset, as the host loads it and as `dids_mix_in` cuts it."""
    from llamafactory.data import loader

    parts = loader._get_merged_dataset(names, model_args, data_args, training_args, stage, True)
    return {name: len(part) for name, part in parts.items()}


def _tasks(settings: Settings, *arguments: Any) -> dict[str, int]:
    """Observed samples of each task; none where the strategy looks at no task."""
    if not settings.needs.tasks or not settings.tasks:
        return {}
    found = _count(list(settings.tasks), *arguments)
    return {name: min(size, settings.config.dids_task_samples) for name, size in found.items()}


def _steps(training_args: Any, num_samples: int, per_step: int) -> int:
    if training_args.max_steps > 0:
        return int(training_args.max_steps)
    return max(1, math.ceil(training_args.num_train_epochs * math.ceil(num_samples / per_step)))


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
    sources: dict[str, int],
    tasks: dict[str, int],
    num_domains: int,
    training_samples: int,
    num_updates: int,
) -> dict[str, Any]:
    config, needs = settings.config, settings.needs
    num_samples, observed = sum(sources.values()), sum(tasks.values())
    size = size_of(model_args, config.dids_gradient_layers)
    arguments, _ = proxy_arguments(settings, model_args)
    proxy = size_of(arguments, config.dids_gradient_layers)
    relative = proxy.parameters / size.parameters if proxy and size else 1.0
    gradient_pass = FORWARD + BACKWARD * config.dids_gradient_layers  # backward through the tracked blocks alone
    makes_gradients = config.dids_domains == "cluster" and config.dids_cluster_features == "gradient"
    per_update = observed * (gradient_pass if needs.impact else FORWARD)
    keeps_running = needs.gradients and config.dids_domain_gradients == "running"
    if needs.gradients and not keeps_running:
        per_update += num_domains * config.dids_fresh_samples * gradient_pass
    training = training_samples * (FORWARD + BACKWARD)
    run = needs.proxy_run
    tracked = min(config.dids_tracked_entries, size.tracked if size else config.dids_tracked_entries)
    dim = config.dids_projection_dim if makes_gradients else 0
    return {
        "parameters": size.parameters if size else None,
        "proxy": arguments.model_name_or_path,
        "proxy_parameters": proxy.parameters if proxy and makes_gradients else None,
        "proxy_bytes": proxy.num_bytes if proxy and makes_gradients else 0,
        "training_passes": training,
        "domain_passes": num_samples * gradient_pass * relative if makes_gradients else 0.0,
        "update_passes": num_updates * per_update + 2 * observed * FORWARD,  # losses alone, at the start and the end
        "proxy_run": run.name if run else None,
        "proxy_run_passes": run.share * training * relative if run else 0.0,
        "gradient_bytes": num_domains * tracked * 4 if keeps_running else 0,
        "disk_bytes": num_samples * (dim * BYTES_PER_FEATURE + BYTES_PER_ROW * bool(dim) + BYTES_PER_KEY),
    }
