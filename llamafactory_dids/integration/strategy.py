"""The inputs of a strategy: options from the YAML file, and inputs that no YAML file can give (`mixers/base.py`)."""

from typing import Any

from .. import mixers
from ..config import FIELDS, MixingConfig
from ..errors import DidsError
from ..mixers.checks import require_tasks


def takes(strategy: str, name: str) -> bool:
    """Whether the strategy's factory has a keyword of this name."""
    return name in mixers.options(strategy)


def option_key(strategy: str, name: str) -> str | None:
    """The key that sets a strategy's option; None if no YAML key does."""
    return next((key for key in (f"dids_{strategy}_{name}", f"dids_{name}") if key in FIELDS), None)


def option_keys(strategy: str) -> set[str]:
    """The keys that set any of a strategy's options."""
    return {key for name in mixers.options(strategy) if (key := option_key(strategy, name)) is not None}


def options(strategy: str, config: MixingConfig) -> dict[str, Any]:
    """The options that the YAML file sets for the strategy, by name."""
    found: dict[str, Any] = {}
    if takes(strategy, "clustered"):
        found["clustered"] = config.dids_domains == "cluster"
    for name in mixers.options(strategy):
        key = option_key(strategy, name)
        if key is not None and (value := getattr(config, key)) is not None:
            found[name] = value
    return found


def make_mixer(strategy: str, config: MixingConfig, num_domains: int, num_tasks: int, **given: Any) -> mixers.Mixer:
    """The strategy's mixer with its options, and with the `given` inputs that its factory has a keyword for.

    Raises DidsError, naming the key, for a value that is not allowed, or if the strategy needs tasks and there are
    none.
    """
    wanted = {name: value for name, value in given.items() if takes(strategy, name)}
    try:
        mixer = mixers.create(strategy, num_domains, num_tasks, **options(strategy, config), **wanted)
        if mixer.needs.tasks or mixer.needs.task_samples:
            require_tasks(strategy, num_tasks)
        return mixer
    except ValueError as error:
        raise DidsError(str(error)) from None


def mixer_on_two_domains(strategy: str, config: MixingConfig, num_tasks: int, *, sized: bool = True) -> mixers.Mixer:
    """The mixer over two domains, of known size or not.

    A mixer's needs and allowed options do not depend on the number of domains. This mixer shows them before any data is
    loaded.
    """
    return make_mixer(
        strategy,
        config,
        2,
        num_tasks,
        sizes_D=[1, 1] if sized else None,
        probabilities_D=[0.5, 0.5],
        points_K=[0.0],
        mixtures_KD=[[0.5, 0.5]],
        task_samples_TD=[[1, 1]] * num_tasks,
    )
