"""Our keys in the host's argument parser: a subclass with our keys replaces one dataclass in its list."""

import dataclasses
import difflib
import functools
import logging
from collections.abc import Callable
from typing import Any, Literal, get_args, get_type_hints

from llamafactory.hparams import DataArguments, read_args

from ... import mixers
from ...config import FIELDS, as_text, make_config
from ...errors import DidsError
from ...mixers.base import Needs
from ..errors import nearest, refusals
from ..host import resume
from ..settings import Settings
from ..strategy import mixer_on_two_domains
from . import checks

logger = logging.getLogger(__name__)

KEYS = ("mix_strategy", *FIELDS)
SLIP = 0.85  # likeness from which a key is taken for a misspelt one of ours; no key of the host's reaches it
HOST_STRATEGIES = tuple(get_args(get_type_hints(DataArguments)["mix_strategy"]))


def with_our_keys(host_classes: list[type]) -> list[type]:
    """The host's list of argument classes, with our `mix_strategy` values and `dids_*` keys in its data arguments.

    Raises DidsError if another package's strategy has the name of a host's strategy.
    """
    if taken := sorted(set(HOST_STRATEGIES) & set(mixers.names())):
        raise DidsError(f"mix_strategy: {taken[0]!r} is LLaMA-Factory's own; allowed: another name for the added mixer")
    return [_extended(kind, mixers.names()) if kind is DataArguments else kind for kind in host_classes]


@functools.cache
def _extended(host: type, added: tuple[str, ...]) -> type:
    """A subclass with our keys, which is found by its name in this module.

    `datasets` hashes the data arguments for every `map`. It then hashes the name, not all that the class refers to.
    """
    mix_strategy = dataclasses.field(
        default="concat",
        metadata={"help": f"Strategy to use in dataset mixing. By llamafactory-dids: {', '.join(added)}."},
    )
    # we check the type ourselves, with a one-line error, so the command line takes all of the host's spellings
    fields = [
        (name, item.type, dataclasses.field(default=item.default, metadata=item.metadata))
        for name, item in FIELDS.items()
    ]
    ours = [("mix_strategy", Literal[HOST_STRATEGIES + added], mix_strategy), *fields]
    names = {"__module__": __name__, "__qualname__": f"DataArguments_{'_'.join(added)}", "to_dict": _to_dict(host)}
    made = dataclasses.make_dataclass("DataArguments", ours, bases=(host,), namespace=names)
    globals()[made.__qualname__] = made
    return made


def __getattr__(name: str) -> Any:
    """The subclass, for a process that unpickles data arguments and has not parsed any."""
    made = _extended(DataArguments, mixers.names())
    if name == made.__qualname__:
        return made
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def _to_dict(host: type) -> Callable[[Any], dict[str, Any]]:
    def to_dict(self: Any) -> dict[str, Any]:
        values: dict[str, Any] = host.to_dict(self)  # type: ignore[attr-defined]
        if self.mix_strategy in mixers.names():
            return values
        return {key: value for key, value in values.items() if key not in FIELDS}  # as the host alone reports them

    return to_dict


def checking(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `get_train_args`. Our keys are checked before it, and the settings stored after it."""

    @functools.wraps(host)
    def get_train_args(args: Any = None) -> Any:
        args = read_args(args)
        values = as_dict(args)
        check_names(values)
        if values.get("mix_strategy") not in mixers.names():
            return _host_only(host, args, values)
        config = make_config(values)  # a wrong type is refused before the host parses
        checks.check_environment()
        with refusals():
            parsed = host({**args, **_as_host_types(values)} if isinstance(args, dict) else args)
        _, data_args, training_args, finetuning_args, _ = parsed
        strategy, tasks = data_args.mix_strategy, config.tasks() or tuple(data_args.eval_dataset or ())
        trains = training_args.do_train  # without training nothing is mixed, and no key of a mixture is used
        data_args.mixing = Settings(
            strategy=strategy,
            config=config,
            needs=mixer_on_two_domains(strategy, config, len(tasks)).needs if trains else Needs(),
            tasks=tasks,
            seed=config.dids_seed if config.dids_seed is not None else training_args.seed,
            arguments=values,
            as_words=not isinstance(args, dict),
            finetuning_args=finetuning_args,
        )
        checks.check(data_args.mixing, *parsed[:4])
        resume.settle(data_args.mixing, training_args)
        return parsed

    return get_train_args


def _host_only(host: Callable[..., Any], args: Any, values: dict[str, Any]) -> Any:
    strategy = values.get("mix_strategy", "concat")
    check_strategy(strategy)
    if idle := [key for key in values if key.startswith("dids_")]:
        logger.warning("%s: no effect with mix_strategy %s", ", ".join(idle), strategy)
    return host(args)


def _as_host_types(values: dict[str, Any]) -> dict[str, Any]:
    """YAML lists and mappings as the text that the parser's fields expect."""
    return {key: as_text(key, value) for key, value in values.items() if key in FIELDS and not isinstance(value, str)}


def check_strategy(strategy: Any) -> None:
    """Raise DidsError for a `mix_strategy` that is neither the host's nor ours."""
    if strategy not in HOST_STRATEGIES + mixers.names():
        raise DidsError(
            f"mix_strategy: got {strategy!r}, allowed: {', '.join(HOST_STRATEGIES + mixers.names())}"
            f"{nearest(str(strategy), HOST_STRATEGIES + mixers.names())}"
        )


def check_names(values: dict[str, Any]) -> None:
    """Raise DidsError for an unknown `dids_` key, or a likely misspelling, with the nearest known key."""
    for key in values:
        if key in FIELDS or key == "mix_strategy":
            continue
        slips = difflib.get_close_matches(key, KEYS, n=1, cutoff=SLIP)
        if key.startswith("dids_") or slips:
            raise DidsError(f"{key}: unknown key{nearest(key, KEYS)}; `--help` lists the dids_ keys")


def as_dict(args: Any) -> dict[str, Any]:
    """The arguments as given: a YAML file's dictionary, or `--key value` and `--key=value` words."""
    if isinstance(args, dict):
        return {str(key): value for key, value in args.items()}  # YAML reads some words as numbers or switches
    values: dict[str, Any] = {}
    words = list(args)
    while words:
        word = words.pop(0)
        if not word.startswith("--"):
            continue
        key, separator, value = word[2:].partition("=")
        key = key.replace("-", "_")
        follows = words and not words[0].startswith("--")
        if key.startswith("no_dids_"):  # the parser's spelling for turning off a switch
            values[key.removeprefix("no_")] = False
        else:
            values[key] = _typed(value) if separator else _typed(words.pop(0)) if follows else True
    return values


def _typed(word: str) -> Any:
    return {"true": True, "false": False}.get(word.lower(), word)
