"""The keys that the page offers: what it shows at first, which of them apply, and what is wrong with an entry."""

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
PRESET = "preset"  # shown where a key that is not set takes the preset's value
AUTO = "auto"  # of where the domains come from: clusters, or the datasets where the mixture is fixed

# Key: what the page shows at first, which is what a run does without the key.
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
    """A strategy with what the page says of the other keys, asked for what it takes and needs."""

    def __init__(self, strategy: str, values: dict[str, Any]) -> None:
        try:
            self.options = mixers.options(strategy)
        except ValueError as error:  # another package's, which cannot be loaded
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


# Keys that are no mixer's option: when they apply. An option applies where the strategy's factory takes it.
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
    """The keys that mean something with the strategy chosen, in the page's order; the strategy alone if the host's.

    Raises DidsError for a strategy of another package that cannot be used.
    """
    strategy = values[STRATEGY]
    if strategy not in mixers.names():
        return [STRATEGY]
    choice = Choice(strategy, values)
    return [key for key in FIRST if (_APPLIES[key](choice) if key in _APPLIES else key in choice.option_keys)]


def chosen(values: dict[str, Any]) -> dict[str, Any]:
    """The YAML keys that the page's values say: those that apply, where they are not what a run does anyway.

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
    """Whether a strategy is this plugin's, or another package's for it."""
    return strategy in mixers.names()


def problem(args: dict[str, Any]) -> str:
    """What is wrong with a run's arguments, in one line, as far as it can be told before a run is started; or nothing.

    `args` are those of a YAML file.
    """
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
