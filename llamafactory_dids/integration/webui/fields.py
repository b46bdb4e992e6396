"""The keys that the page offers: their initial values, which of them apply, and what is wrong with an entry."""

from types import SimpleNamespace
from typing import Any

from ... import mixers
from ...config import FIELDS, MixingConfig, make_config, split_list
from ...errors import DidsError
from ...mixers.base import Needs
from ..arguments.checks import check_entries
from ..arguments.keys import HOST_STRATEGIES, check_names, check_strategy
from ..errors import one_line
from ..settings import Settings
from ..strategy import mixer_on_two_domains, option_keys

STRATEGY = "mix_strategy"
PRESET = "preset"  # shown for an unset key, which takes the preset's value
AUTO = "auto"  # origin of the domains: the datasets for a fixed mixture, else clusters

# Initial value of each field. It equals the key's default, so an untouched field adds nothing to the YAML.
FIRST: dict[str, Any] = {
    STRATEGY: "concat",
    "dids_tasks": [],
    "dids_task_samples": FIELDS["dids_task_samples"].default,
    "dids_domains": AUTO,
    "dids_num_domains": "",
    "dids_proxy_model": "",
    "dids_update_samples": "",
    "dids_preset": FIELDS["dids_preset"].default,
    "dids_ema_beta": "",
    "dids_proxy_share": "",
    "dids_probs": "",
    "dids_schedule": "",
    "dids_share_of": FIELDS["dids_share_of"].default,
    "dids_trajectory": True,
    "dids_impact": PRESET,
    "dids_cluster_features": FIELDS["dids_cluster_features"].default,
}


def _needs(strategy: str, domains: str) -> Needs:
    return mixer_on_two_domains(strategy, MixingConfig(dids_domains=domains), num_tasks=1).needs


def _origin(values: dict[str, Any]) -> str:
    """Where the domains come from. `auto` is the datasets if the strategy's mixture is fixed, else clusters."""
    wanted: str = values.get("dids_domains") or AUTO
    if wanted != AUTO:
        return wanted
    needs = _needs(values[STRATEGY], "cluster")
    looks = needs.measures or needs.tasks or needs.task_samples or needs.proxy_run
    return "cluster" if looks else "source"


def applicable(values: dict[str, Any]) -> list[str]:
    """The keys that have an effect with the chosen strategy, in the page's order. For a host's strategy, its key alone.

    Raises DidsError for a strategy of another package that cannot be used.
    """
    strategy = values[STRATEGY]
    if not is_ours(strategy):
        return [STRATEGY]
    try:
        inputs = mixers.options(strategy)
    except ValueError as error:  # a strategy of another package that cannot be loaded
        raise DidsError(str(error)) from None
    origin = _origin(values)
    needs, clusters = _needs(strategy, origin), origin == "cluster"
    observes, features = needs.tasks or needs.task_samples, clusters or needs.task_samples
    gradients = features and values.get("dids_cluster_features") != "semantic"
    applies = {
        STRATEGY: True,
        "dids_tasks": observes,
        "dids_task_samples": observes,
        "dids_domains": True,
        "dids_num_domains": clusters,
        "dids_cluster_features": features,
        "dids_proxy_model": gradients or needs.proxy_run,
        "dids_update_samples": needs.measures or needs.proxy_run,
        "dids_probs": "probabilities_D" in inputs,
        "dids_schedule": "mixtures_KD" in inputs,
        "dids_share_of": True,
    }
    options = option_keys(strategy)
    return [key for key in FIRST if applies.get(key) or key in options]


def chosen(values: dict[str, Any]) -> dict[str, Any]:
    """The YAML keys for the page's values: those that apply and differ from a run's defaults.

    Raises DidsError as `applicable` does.
    """
    keys = {}
    for key in applicable(values):
        value = values[key]
        if isinstance(value, list):
            value = ",".join(value)
        if key == "dids_domains":
            value = _origin(values)
            if value == FIELDS[key].default:
                continue
        if value not in (None, "") and value != FIRST[key]:
            keys[key] = value
    return keys


def is_ours(strategy: str) -> bool:
    """Whether a strategy is this plugin's, or another package's for this plugin."""
    return strategy in mixers.names()


def problem(args: dict[str, Any]) -> str:
    """What is wrong with a YAML file's arguments, in one line, as far as it shows before a start; else empty."""
    strategy = args.get(STRATEGY, FIRST[STRATEGY])
    try:
        check_names(args)
        check_strategy(strategy)
        if strategy in HOST_STRATEGIES:
            return ""
        config = make_config(args)
        tasks = config.tasks() or split_list(args.get("eval_dataset"))
        datasets = SimpleNamespace(
            dataset=split_list(args.get("dataset")),
            dataset_dir=args.get("dataset_dir"),
            tokenized_path=args.get("tokenized_path"),
        )
        settings = Settings(
            strategy=strategy,
            config=config,
            needs=mixer_on_two_domains(strategy, config, len(tasks)).needs,
            tasks=tasks,
            seed=0,
            arguments=args,
            as_words=False,
            finetuning_args=None,
        )
        check_entries(settings, datasets)
    except DidsError as error:
        return one_line(error)
    return ""
