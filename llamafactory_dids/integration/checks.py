"""Impossible combinations, told in one line before any data or model is loaded."""

import logging
from collections import Counter
from pathlib import Path
from typing import Any

import torch
from llamafactory.data.parser import get_dataset_list
from llamafactory.model import load_config

from .. import mixers
from ..config import FIELDS
from ..errors import DidsError, refuse
from ..stages.cluster import check_one_each
from ..stages.layers import decoder_blocks
from ..training.schedule import check_window, samples_per_step
from . import encoder, mix_in, streaming, tokenized
from .objectives import STAGES
from .probabilities import check_probabilities
from .proxy import proxy_arguments
from .settings import Settings
from .sharding import fsdp_version, uses_deepspeed, whole_models

logger = logging.getLogger(__name__)


def check(settings: Settings, model_args: Any, data_args: Any, training_args: Any, finetuning_args: Any) -> None:
    """Raise DidsError for what cannot work, naming the key, the value and what is allowed."""
    if not training_args.do_train:
        return
    _check_host_keys(data_args, training_args, finetuning_args, model_args)
    check_entries(settings, data_args)
    streaming.check(settings, data_args, finetuning_args, trial_mixer)
    tokenized.check(data_args, settings.config.mix_in(), finetuning_args.stage)
    _check_proxy_runs(settings, training_args)
    check_window(settings.config, samples_per_step(training_args))
    _check_features(settings, model_args)


def check_entries(settings: Settings, data_args: Any) -> None:
    """Of these checks those that take no more of the host than `dataset` and `dataset_dir`, so that the web page can
    make them before it starts a run."""
    _check_datasets(settings, data_args)
    _check_mixer(settings)
    _check_domains(settings, data_args)


def _check_host_keys(data_args: Any, training_args: Any, finetuning_args: Any, model_args: Any) -> None:
    def need(key: str, value: Any, ok: bool, allowed: str) -> None:
        if not ok:
            raise DidsError(f"{key}: got {value!r}, allowed with mix_strategy {data_args.mix_strategy}: {allowed}")

    need("stage", finetuning_args.stage, finetuning_args.stage in STAGES, ", ".join(STAGES))
    _check_stage(data_args, finetuning_args)
    kind = finetuning_args.finetuning_type
    need("finetuning_type", kind, kind in ("full", "freeze", "lora"), "full, freeze, lora")
    need("interleave_probs", data_args.interleave_probs, data_args.interleave_probs is None, "none (see dids_probs)")
    grouped = getattr(training_args, "group_by_length", False) or (
        getattr(training_args, "train_sampling_strategy", "random") == "group_by_length"
    )
    need("group_by_length", True, not grouped, "false (the mixture decides which sample comes next)")
    need("ignore_data_skip", True, not training_args.ignore_data_skip, "false (skipping loads no data)")
    need("auto_find_batch_size", True, not training_args.auto_find_batch_size, "false (a step must not change)")
    version = fsdp_version(training_args)
    need("fsdp", f"version {version}", version != 1, "version 2 (fsdp_version in fsdp_config)")
    saved = not (version and STAGES[finetuning_args.stage].value_head)
    need("fsdp", f"version {version}", saved, "none in this stage (LLaMA-Factory cannot save a value head from shards)")
    for key in ("use_unsloth", "use_kt"):
        need(key, True, not getattr(model_args, key, False), "false")
    for key in ("use_mca", "use_hyper_parallel", "use_megatron_bridge"):
        need(key, True, not getattr(finetuning_args, key, False), "false")
    for key in ("use_dft_loss", "use_asft_loss", "use_eaft_loss"):
        need(key, True, not getattr(finetuning_args, key, False), "false (the signals are of plain cross-entropy)")


def _check_stage(data_args: Any, finetuning_args: Any) -> None:
    """Raise DidsError for what makes a sample's loss depend on its batch, and for what the stage would ignore."""
    name, stage = finetuning_args.stage, STAGES[finetuning_args.stage]
    for key in stage.refused:
        if value := getattr(finetuning_args, key):
            raise DidsError(f"{key}: got {value}, allowed with stage {name} and a mix_strategy of this plugin: 0")
    if data_args.packing and stage.objective is not None:
        raise DidsError(f"packing: got True, allowed with stage {name}: false (a pair or an answer has its own row)")


def _check_datasets(settings: Settings, data_args: Any) -> None:
    names, mixed_in = tuple(data_args.dataset or ()), settings.config.mix_in()
    mix_in.check(settings.config, names)
    for key, listed in (("dataset", names), ("dids_mix_in", mixed_in), ("dids_tasks", settings.tasks)):
        if twice := [name for name, count in Counter(listed).items() if count > 1]:
            raise refuse(key, twice[0], "each name once")
        for name in listed:
            _check_dataset(key, name, data_args)
    if both := {*names, *mixed_in} & set(settings.tasks):
        logger.warning("%s is both trained on and observed as a task", sorted(both)[0])


def _check_dataset(key: str, name: str, data_args: Any) -> None:
    try:
        (attributes,) = get_dataset_list([name], data_args.dataset_dir)
    except ValueError as error:
        raise DidsError(
            f"{key}: got {name!r}, allowed: a name in {data_args.dataset_dir}'s dataset_info.json ({error})"
        ) from None
    path = Path(str(data_args.dataset_dir)) / attributes.dataset_name
    if attributes.load_from == "file" and not path.exists():
        raise DidsError(f"{key}: got {name!r}, whose file {path} is missing; allowed: a dataset whose file is there")


def _check_mixer(settings: Settings) -> None:
    if (settings.config.dids_probs is None) == ("probabilities_D" in mixers.options(settings.strategy)):
        given = settings.config.dids_probs
        raise refuse(
            "dids_probs", given, f"a list or a log for static, nothing for others (mix_strategy is {settings.strategy})"
        )
    if warning := getattr(trial_mixer(settings), "warning", None):
        logger.warning(warning)
    if idle := _idle_keys(settings):
        logger.warning("%s: no effect with mix_strategy %s", ", ".join(idle), settings.strategy)


def _check_proxy_runs(settings: Settings, training_args: Any) -> None:
    if (run := trial_mixer(settings).needs.proxy_run) is None:
        return
    for key, sharded in (("deepspeed", uses_deepspeed(training_args)), ("fsdp", fsdp_version(training_args) > 0)):
        if sharded:
            raise refuse(
                key,
                getattr(training_args, key) or "accelerate's",
                f"none, since mix_strategy {settings.strategy} trains a proxy model (the {run.name} run) in the same "
                "processes (or run it without, and hand its mixture over: mix_strategy static with dids_probs)",
            )


def _idle_keys(settings: Settings) -> list[str]:
    """Keys that were given, and are options of other strategies alone."""
    keys = {name: {option_key(name, option) for option in mixers.options(name)} for name in mixers.names()}
    others = set().union(*keys.values()) - keys[settings.strategy]
    return [key for key in settings.arguments if key in others]


def trial_mixer(settings: Settings, *, sized: bool = True) -> mixers.Mixer:
    """The mixer over two domains, of known size or not: what it needs and allows does not depend on how many there are.
    """
    counts_TD = [[1, 1]] * len(settings.tasks)
    given = {"sizes_D": [1, 1] if sized else None, "probabilities_D": [0.5, 0.5], "task_samples_TD": counts_TD}
    options = {name: value for name, value in given.items() if name in mixers.options(settings.strategy)}
    try:
        return mixers.create(settings.strategy, 2, len(settings.tasks), **options, **mixer_options(settings))
    except ValueError as error:
        raise DidsError(str(error)) from None


def mixer_options(settings: Settings) -> dict[str, Any]:
    """The strategy's options that the YAML file sets."""
    options: dict[str, Any] = {}
    if "clustered" in mixers.options(settings.strategy):
        options["clustered"] = settings.config.dids_domains == "cluster"
    for name in mixers.options(settings.strategy):
        key = option_key(settings.strategy, name)
        if key is not None and (value := getattr(settings.config, key)) is not None:
            options[name] = value
    return options


def option_key(strategy: str, name: str) -> str | None:
    """The key that sets a strategy's option; None for what no YAML file can say."""
    return next((key for key in (f"dids_{strategy}_{name}", f"dids_{name}") if key in FIELDS), None)


def _check_domains(settings: Settings, data_args: Any) -> None:
    config = settings.config
    wanted = config.dids_domains
    if wanted not in ("cluster", "source") and not Path(wanted).expanduser().exists():
        raise refuse("dids_domains", wanted, "cluster, source, or the path of a domain map")
    if wanted == "cluster" and config.dids_cluster_scope == "source":
        check_one_each(config.dids_num_domains, len(data_args.dataset or ()) + len(config.mix_in()))
    if config.dids_probs is not None:
        check_probabilities(config.dids_probs)


def _check_features(settings: Settings, model_args: Any) -> None:
    makes_features = settings.config.dids_domains == "cluster" or trial_mixer(settings).needs.task_samples
    if makes_features and settings.config.dids_cluster_features == "semantic":
        encoder.check(settings, model_args)
    elif makes_features:
        _check_has_blocks(settings, model_args)


def _check_has_blocks(settings: Settings, model_args: Any) -> None:
    """Look for decoder blocks in a model without weights, so that nothing is loaded in vain."""
    from transformers import AutoModelForCausalLM

    arguments, _ = proxy_arguments(settings, model_args)
    try:
        config = load_config(arguments)
    except (OSError, ValueError) as error:
        key = "dids_proxy_model" if settings.config.dids_proxy_model else "model_name_or_path"
        raise refuse(key, arguments.model_name_or_path, f"a model's folder or hub name ({error})") from None
    if type(config) not in AutoModelForCausalLM._model_mapping:
        return  # looked at again when it is loaded
    with whole_models(), torch.device("meta"):
        decoder_blocks(AutoModelForCausalLM.from_config(config, trust_remote_code=arguments.trust_remote_code))
