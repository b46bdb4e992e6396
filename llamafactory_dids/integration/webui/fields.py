"""The keys that the page offers: their initial values, which of them apply, and what is wrong with an entry."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from ... import mixers
from ...config import FIELDS, MixingConfig, make_config, split_list
from ...errors import DidsError
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


class Choice:
    """A strategy, with the page's other values, and what it takes and needs."""

    def __init__(self, strategy: str, values: dict[str, Any]) -> None:
        try:
            self.options = mixers.options(strategy)
        except ValueError as error:  # a strategy of another package that cannot be loaded
            raise DidsError(str(error)) from None
        self.option_keys = option_keys(strategy)
        needs = mixer_on_two_domains(strategy, MixingConfig(), num_tasks=1).needs
        self.is_fixed = not (needs.measures or needs.tasks or needs.task_samples or needs.proxy_run)
        wanted = values.get("dids_domains") or AUTO
        self.domains = ("source" if self.is_fixed else "cluster") if wanted == AUTO else wanted
        self.features = values.get("dids_cluster_features") or FIRST["dids_cluster_features"]
        self.needs = mixer_on_two_domains(strategy, MixingConfig(dids_domains=self.domains), num_tasks=1).needs

    @property
    def clusters(self) -> bool:
        return bool(self.domains == "cluster")

    @property
    def features_wanted(self) -> bool:
        return self.clusters or self.needs.task_samples

    @property
    def tasks_wanted(self) -> bool:
        return self.needs.tasks or self.needs.task_samples


# When a key applies that is no mixer's option. An option applies if the strategy's factory takes it.
_APPLIES: dict[str, Callable[[Choice], bool]] = {
    STRATEGY: lambda choice: True,
    "dids_tasks": lambda choice: choice.tasks_wanted,
    "dids_task_samples": lambda choice: choice.tasks_wanted,
    "dids_domains": lambda choice: True,
    "dids_num_domains": lambda choice: choice.clusters,
    "dids_cluster_features": lambda choice: choice.features_wanted,
    "dids_proxy_model": lambda choice: bool(
        choice.needs.proxy_run or (choice.features_wanted and choice.features == "gradient")
    ),
    "dids_update_samples": lambda choice: bool(choice.needs.measures or choice.needs.proxy_run),
    "dids_probs": lambda choice: "probabilities_D" in choice.options,
    "dids_schedule": lambda choice: "mixtures_KD" in choice.options,
    "dids_share_of": lambda choice: True,
}


def applicable(values: dict[str, Any]) -> list[str]:
    """The keys that have an effect with the chosen strategy, in the page's order. For a host's strategy, its key alone.

    Raises DidsError for a strategy of another package that cannot be used.
    """
    strategy = values[STRATEGY]
    if strategy not in mixers.names():
        return [STRATEGY]
    choice = Choice(strategy, values)
    return [key for key in FIRST if (_APPLIES[key](choice) if key in _APPLIES else key in choice.option_keys)]


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
            value = Choice(values[STRATEGY], values).domains
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
        check_entries(_settings(strategy, config, tasks, args), datasets)
    except DidsError as error:
        return one_line(error)
    return ""


def _settings(strategy: str, config: MixingConfig, tasks: tuple[str, ...], values: dict[str, Any]) -> Settings:
    needs = mixer_on_two_domains(strategy, config, len(tasks)).needs
    return Settings(strategy, config, needs, tasks, seed=0, arguments=values, as_words=False, finetuning_args=None)
