"""What a run would do, said in words before it does it: its data is counted, its model known by its configuration.

Computing is counted in forward passes of the trained model over a training sample; a backward pass costs two more. So
the figures are of the right size and not a measurement: lengths differ, and a device is not always busy.
"""

import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from llamafactory.model import load_config

from ..artifacts.domain_map import load_map
from ..errors import DidsError, refuse
from ..stages.layers import track_layers
from ..training.schedule import FEW_UPDATES, samples_per_step
from . import settings as run_settings
from .checks import trial_mixer
from .proxy import proxy_arguments
from .settings import Settings, cache_folder

FORWARD, BACKWARD = 1.0, 2.0
BYTES_PER_FEATURE, BYTES_PER_ROW = 2, 5  # float16; a norm and a mask
BYTES_PER_KEY = 40  # of a sample in domains.parquet, about


@dataclass(frozen=True)
class Explanation:
    """Counts of samples unless a name says otherwise; `*_passes` are forward passes of the trained model.

    `parameters` is None where the configuration is not of a causal language model.
    """

    strategy: str
    sources: dict[str, int]
    num_domains: int
    domains_from: str
    tasks: dict[str, int]
    processes: int
    samples_per_step: int
    steps: int
    training_samples: int
    update_samples: int
    num_updates: int
    parameters: int | None
    proxy: str
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
    """Explain the YAML file in `sys.argv`, as if started on so many processes (default: one for each GPU here).

    Raises DidsError where the run would be refused, or does not mix.
    """
    from llamafactory.train import tuner

    try:
        model_args, data_args, training_args, finetuning_args, _ = tuner.get_train_args()
    except DidsError:
        raise
    except (ValueError, OSError, ImportError) as error:
        raise DidsError(f"LLaMA-Factory refuses these arguments: {error}") from error
    settings = run_settings.of(data_args)
    if settings is None or not training_args.do_train:
        key, value = ("do_train", False) if settings is not None else ("mix_strategy", data_args.mix_strategy)
        raise DidsError(f"{key}: got {value!r}, allowed: a training with a mix_strategy of this plugin")
    if data_args.streaming:
        raise refuse("streaming", True, "false, since samples are counted (add streaming=false to the command)")
    ranks = processes or max(training_args.world_size, torch.cuda.device_count(), 1)
    per_step = samples_per_step(training_args, ranks)
    sources = _count(data_args.dataset, model_args, data_args, training_args, finetuning_args.stage)
    steps = _steps(training_args, sum(sources.values()), per_step)
    needs = trial_mixer(settings).needs
    tasks = _tasks(settings, needs, model_args, data_args, training_args, finetuning_args.stage)
    num_domains, domains_from = _domains(settings, model_args, sources)
    costs = _costs(settings, needs, model_args, sources, tasks, num_domains, steps * per_step)
    return Explanation(
        strategy=settings.strategy,
        sources=sources,
        num_domains=num_domains,
        domains_from=domains_from,
        tasks=tasks,
        processes=ranks,
        samples_per_step=per_step,
        steps=steps,
        training_samples=steps * per_step,
        update_samples=settings.config.dids_update_samples,
        num_updates=steps * per_step // settings.config.dids_update_samples if needs.measures else 0,
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


def _tasks(settings: Settings, needs: Any, *arguments: Any) -> dict[str, int]:
    """Observed samples of each task; none where the strategy looks at no task."""
    if not needs.tasks or not settings.tasks:
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
    return config.dids_num_domains, f"k-means {where}, on {what}"


def _costs(
    settings: Settings,
    needs: Any,
    model_args: Any,
    sources: dict[str, int],
    tasks: dict[str, int],
    num_domains: int,
    training_samples: int,
) -> dict[str, Any]:
    config = settings.config
    num_samples, observed = sum(sources.values()), sum(tasks.values())
    size, entries = _size(model_args, config.dids_gradient_layers)
    arguments, _ = proxy_arguments(settings, model_args)
    proxy_size, _ = _size(arguments, config.dids_gradient_layers)
    relative = proxy_size / size if proxy_size and size else 1.0
    gradient_pass = FORWARD + BACKWARD * config.dids_gradient_layers  # backward through the tracked blocks alone
    makes_gradients = config.dids_domains == "cluster" and config.dids_cluster_features == "gradient"
    num_updates = training_samples // config.dids_update_samples if needs.measures else 0
    per_update = observed * (gradient_pass if needs.impact else FORWARD)
    keeps_running = needs.impact is not None and config.dids_domain_gradients == "running"
    if needs.impact is not None and not keeps_running:
        per_update += num_domains * config.dids_fresh_samples * gradient_pass
    training = training_samples * (FORWARD + BACKWARD)
    run = needs.proxy_run
    tracked = min(config.dids_tracked_entries, entries or config.dids_tracked_entries)
    dim = config.dids_projection_dim if makes_gradients else 0
    return {
        "parameters": size,
        "proxy": arguments.model_name_or_path,
        "training_passes": training,
        "domain_passes": num_samples * gradient_pass * relative if makes_gradients else 0.0,
        "update_passes": num_updates * per_update + (observed * FORWARD if num_updates else 0.0),
        "proxy_run": run.name if run else None,
        "proxy_run_passes": run.share * training * relative if run else 0.0,
        "gradient_bytes": num_domains * tracked * 4 if keeps_running else 0,
        "disk_bytes": num_samples * (dim * BYTES_PER_FEATURE + BYTES_PER_ROW * bool(dim) + BYTES_PER_KEY),
    }


def _size(arguments: Any, share: float) -> tuple[int | None, int | None]:
    """Parameters of a model, and tracked gradient entries, from its configuration alone."""
    from transformers import AutoModelForCausalLM

    config = load_config(arguments)
    if type(config) not in AutoModelForCausalLM._model_mapping:
        return None, None
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=arguments.trust_remote_code)
    return sum(weight.numel() for weight in model.parameters()), track_layers(model, share).num_entries()


def in_words(found: Explanation) -> str:
    """The explanation as lines for a person."""
    names = ", ".join(f"{name} {count:,}" for name, count in found.sources.items())
    rows = [
        ("Data", f"{sum(found.sources.values()):,} samples of {_number(len(found.sources), 'dataset')}: {names}"),
        ("Domains", f"{'up to ' * found.domains_from.startswith('k-means')}{found.num_domains}: {found.domains_from}"),
        ("Tasks", _task_words(found)),
        ("Training", _training_words(found)),
        ("Updates", _update_words(found)),
        ("Cost", _cost_words(found)),
        ("Memory", f"{_bytes(found.gradient_bytes)} on each device for the domains' running gradients"),
        (
            "Disk",
            f"about {_bytes(found.disk_bytes)} in {found.cache}, made once; log, map and report in {found.output}",
        ),
    ]
    return "\n".join(f"{what + ':':<10}{text}" for what, text in [("Strategy", found.strategy), *rows])


def _number(count: int, what: str) -> str:
    return f"{count:,} {what}" + ("" if count == 1 else "s")


def _bytes(count: float) -> str:
    power = min(4, int(math.log10(max(1, count))) // 3)
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"


def _task_words(found: Explanation) -> str:
    if not found.tasks:
        return "none: this strategy looks at no task"
    return "observes " + ", ".join(f"{count} samples of {name}" for name, count in found.tasks.items())


def _training_words(found: Explanation) -> str:
    packed = ", fewer where samples are packed together" if found.packing else ""
    return (
        f"{found.training_samples:,} samples in {_number(found.steps, 'step')} of {found.samples_per_step}, on "
        f"{_number(found.processes, 'process').replace('processs', 'processes')}{packed}"
    )


def _update_words(found: Explanation) -> str:
    if not found.num_updates and not found.update_passes:
        fixed = "none" if found.training_samples < found.update_samples else "none: the mixture is fixed"
        return fixed
    few = "" if found.num_updates >= FEW_UPDATES else (
        f"; at least {FEW_UPDATES} are needed for most of the gain: lower dids_update_samples"
    )  # fmt: skip
    return f"{found.num_updates}, one every {found.update_samples:,} samples{few}"


def _cost_words(found: Explanation) -> str:
    share = found.training_passes
    parts = []
    if found.domain_passes:
        parts.append(f"{found.domain_passes / share:.1%} to make the domains, once")
    if found.update_passes:
        parts.append(f"{found.update_passes / share:.1%} for the updates")
    if found.proxy_run:
        parts.append(
            f"at least {found.proxy_run_passes / share:.0%} for the proxy run {found.proxy_run!r} and its like"
        )
    size = f"; the model has {found.parameters:,} parameters" if found.parameters else ""
    if not parts:
        return f"as much computing as without mixing{size}"
    return f"about {found.overhead:.1%} of the training's computing on top: {', '.join(parts)}{size}"
