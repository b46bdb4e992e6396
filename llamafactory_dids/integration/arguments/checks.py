"""Impossible combinations, refused in one line before any data or model is loaded."""

import dataclasses
import json
import logging
import os
from collections import Counter
from pathlib import Path
from typing import Any, get_args, get_type_hints

from llamafactory.data.parser import get_dataset_list
from llamafactory.data.template import TEMPLATES

from ... import mixers
from ...artifacts.domain_map import is_map, load_map
from ...config import FIELDS
from ...errors import DidsError, refuse
from ...stages.cluster import check_one_each
from ...training.schedule import check_window, samples_per_step
from ..data.saved import check_note, is_saved
from ..errors import nearest
from ..plan.probabilities import check_mixture
from ..plan.schedules import check_schedule
from ..settings import Settings
from ..strategy import mixer_on_two_domains, option_keys, takes
from .host_options import check_host_options
from .media import check_media
from .models import check_features, check_files, check_tracked

logger = logging.getLogger(__name__)

OF_RANKS = {"RANK": 0, "LOCAL_RANK": -1, "WORLD_SIZE": 1, "LOCAL_WORLD_SIZE": 1}  # the environment's, and the least
LEAST = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 1, "max_samples": 1, "cutoff_len": 2}
BOTH = "%s is both trained on and observed as a task"


def check_environment() -> None:
    """Raise DidsError for ranks that are none, which the host counts with."""
    for name, least in OF_RANKS.items():
        word = os.environ.get(name, str(least))
        if not (word.removeprefix("-").isdigit() and int(word) >= least):
            raise refuse(name, word, f"an integer >= {least} in the environment, as torchrun sets it")


def check(settings: Settings, model_args: Any, data_args: Any, training_args: Any, finetuning_args: Any) -> None:
    """Raise DidsError for a run that cannot work, naming the key, the value and what is allowed."""
    if not training_args.do_train:
        return
    for arguments in (finetuning_args, training_args, data_args, model_args):
        _check_numbers(settings, arguments)
    check_host_options(settings, model_args, data_args, training_args, finetuning_args)
    _check_writable("output_dir", training_args.output_dir)
    if data_args.template is not None and data_args.template not in TEMPLATES:
        allowed = f"a template of LLaMA-Factory's{nearest(str(data_args.template), list(TEMPLATES))}"
        raise refuse("template", data_args.template, allowed)
    check_entries(settings, data_args)
    _check_ranking(settings, data_args, finetuning_args.stage)
    _check_streaming(settings, data_args)
    if settings.makes_features or settings.needs.proxy_run is not None:
        _check_writable("dids_cache_dir", settings.config.dids_cache_dir)
    check_note(data_args, data_args.dataset, finetuning_args.stage)
    if settings.needs.measures or settings.needs.proxy_run is not None:
        check_window(settings.config, samples_per_step(training_args))
    check_files(settings, model_args, finetuning_args)
    check_features(settings, model_args, training_args.device)
    check_tracked(settings, model_args, finetuning_args)
    check_media(settings, model_args, data_args, finetuning_args)


def _check_numbers(settings: Settings, arguments: Any) -> None:
    """Raise DidsError for a number of the host's that is none, which it would notice when it counts with it."""
    given = {field.name for field in dataclasses.fields(arguments)} & settings.arguments.keys() - FIELDS.keys()
    for name in sorted(given):
        value, kind = getattr(arguments, name), get_type_hints(type(arguments))[name]
        kinds = set(get_args(kind) or [kind]) - {type(None)}
        if value is None or not kinds <= {int, float}:
            continue
        if not isinstance(value, int | float) or (float not in kinds and not float(value).is_integer()):
            raise refuse(name, value, "a number" if float in kinds else "an integer")
        if value < LEAST.get(name, value):
            raise refuse(name, value, f"an integer >= {LEAST[name]}")


def _check_writable(key: str, name: Any) -> None:
    """Raise DidsError for a folder that cannot be written to, or made."""
    folder = Path(str(name)).expanduser().absolute()
    there = next(path for path in (folder, *folder.parents) if os.path.lexists(path))
    if not (str(name).strip() and there.is_dir() and os.access(there, os.W_OK | os.X_OK)):
        raise refuse(key, name, "a folder that can be written to")


def check_entries(settings: Settings, data_args: Any) -> None:
    """The checks that need only `dataset` and `dataset_dir` of the host. The web page makes them before it starts a
    run.
    """
    _check_datasets(settings, data_args)
    _check_mixer(settings)
    _check_proxy_folder(settings)
    _check_domains(settings, data_args)


def _check_datasets(settings: Settings, data_args: Any) -> None:
    names = tuple(data_args.dataset or ())
    for key, listed in (("dataset", names), ("dids_tasks", settings.tasks)):
        if twice := [name for name, count in Counter(listed).items() if count > 1]:
            raise refuse(key, twice[0], "each name once")
    for key, name in _read_anew(settings, data_args):
        _check_dataset(key, name, data_args)
    if both := set(names) & set(settings.tasks):
        logger.warning(BOTH, sorted(both)[0])


def _read_anew(settings: Settings, data_args: Any) -> list[tuple[str, str]]:
    """Key and name of each data set whose file is read. The files that saved rows were made from may be gone."""
    rows = () if is_saved(data_args) else data_args.dataset or ()
    return [*(("dataset", name) for name in rows), *(("dids_tasks", name) for name in settings.tasks)]


def _check_ranking(settings: Settings, data_args: Any, stage: str) -> None:
    """Raise DidsError unless the datasets have pairs for a stage that learns from pairs, and none for another stage."""
    wanted = stage in ("dpo", "rm")
    for key, name in _read_anew(settings, data_args):
        (attributes,) = get_dataset_list([name], data_args.dataset_dir)
        if attributes.ranking != wanted:
            needed = f"ranking: {str(wanted).lower()}"
            raise refuse(key, name, f"with stage {stage} a dataset that has {needed} in dataset_info.json")


def _check_dataset(key: str, name: str, data_args: Any) -> None:
    try:
        (attributes,) = get_dataset_list([name], data_args.dataset_dir)
    except Exception as error:  # of the host, for whatever is wrong with the entry or with the file that it stands in
        known = load_names(data_args.dataset_dir)
        why = nearest(name, known).removeprefix(", ") or (f"it has {len(known)}" if known else str(error))
        raise DidsError(
            f"{key}: got {name!r}, allowed: a name in {data_args.dataset_dir}'s dataset_info.json ({why})"
        ) from None
    if not isinstance(attributes.dataset_name, str):
        raise refuse(key, name, "a dataset whose entry in dataset_info.json has a file_name, or where to load it from")
    path = Path(str(data_args.dataset_dir)) / attributes.dataset_name
    if attributes.load_from == "file" and not path.exists():
        raise DidsError(f"{key}: got {name!r}, whose file {path} is missing; allowed: a dataset whose file is there")


def load_names(dataset_dir: Any) -> list[str]:
    """The names in a folder's `dataset_info.json`; empty if the file is missing or not readable."""
    try:
        return list(json.loads((Path(str(dataset_dir)) / "dataset_info.json").read_text(encoding="utf-8")).keys())
    except (OSError, ValueError, AttributeError):
        return []


def _check_proxy_folder(settings: Settings) -> None:
    """Raise DidsError if the proxy is needed and its path does not exist. A hub would be asked for it otherwise."""
    name = settings.config.dids_proxy_model
    if not settings.loads_proxy or name is None:
        return
    if (name.startswith(("/", ".", "~")) or name.count("/") > 1) and not Path(name).is_dir():
        raise refuse("dids_proxy_model", name, "a folder that is there, or the name of a model on the hub")


def _check_mixer(settings: Settings) -> None:
    config, strategy = settings.config, settings.strategy
    for key, option, allowed in (
        ("dids_probs", "probabilities_D", "a mixture or a log for static"),
        ("dids_schedule", "mixtures_KD", "mixtures at points of the run for schedule"),
    ):
        value = getattr(config, key)
        if (value is None) == takes(strategy, option):
            raise refuse(key, value, f"{allowed}, nothing for others (mix_strategy is {strategy})")
    mixer = mixer_on_two_domains(strategy, config, len(settings.tasks))
    if warning := getattr(mixer, "warning", None):
        logger.warning(warning)
    if idle := _idle_keys(settings):
        logger.warning("%s: no effect with mix_strategy %s", ", ".join(idle), strategy)


def _idle_keys(settings: Settings) -> list[str]:
    """Given keys that are options of other strategies only."""
    others = set().union(*map(option_keys, mixers.names())) - option_keys(settings.strategy)
    return [key for key in settings.arguments if key in others]


def _check_streaming(settings: Settings, data_args: Any) -> None:
    """Raise DidsError for a need that a stream cannot meet: its length, or features of its samples."""
    if not data_args.streaming:
        return
    config = settings.config

    def need(key: str, value: Any, ok: bool, allowed: str) -> None:
        if not ok:
            raise DidsError(f"{key}: got {value!r}, allowed with streaming: {allowed}")

    by_map = "source, or the path of a domain map (llamafactory-dids cluster makes one, without streaming)"
    need("dids_domains", config.dids_domains, config.dids_domains != "cluster", by_map)
    need("dids_max_repeats", config.dids_max_repeats, config.dids_max_repeats is None, "none")
    looks = settings.needs.proxy_run is not None or settings.needs.task_samples
    need("mix_strategy", settings.strategy, not looks, "one without a proxy run or features of the samples")
    if config.dids_domains == "source":
        try:
            mixer_on_two_domains(settings.strategy, config, len(settings.tasks), sized=False)
        except DidsError as error:
            raise refuse("dids_domains", "source", f"with streaming, a domain map, since else {error}") from None


def _check_domains(settings: Settings, data_args: Any) -> None:
    config = settings.config
    wanted, sources = config.dids_domains, tuple(data_args.dataset or ())
    domains: tuple[str, ...] | None = None if wanted == "cluster" else ()
    if wanted not in ("cluster", "source"):
        if not is_map(path := Path(wanted).expanduser()):
            raise refuse("dids_domains", wanted, "cluster, source, or the path of a domain map")
        domains = load_map(path).names
    if wanted == "cluster" and config.dids_cluster_scope == "source" and config.dids_num_domains is not None:
        check_one_each(config.dids_num_domains, len(sources))
    if config.dids_probs is not None:
        check_mixture("dids_probs", config.dids_probs, sources, domains, config.dids_share_of)
    if config.dids_schedule is not None:
        check_schedule(config.dids_schedule, sources, domains, config.dids_share_of)
