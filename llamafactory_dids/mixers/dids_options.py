"""The options of `dids`: the presets (method.md, section 5), and the allowed values and combinations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .base import IMPACT_KINDS, IMPACT_NORMALIZATIONS
from .checks import require_bool, require_choice, require_positive, require_share

WHERE_CLUSTERED = "importance where the run makes its domains, else uniform"
_COMMON: dict[str, Any] = {
    "trajectory": True,
    "eta": 4.0,
    "ema_beta": 0.1,
    "floor": 0.05,
    "init": "uniform",
}
PRESETS: dict[str, dict[str, Any]] = {
    "default": _COMMON
    | {"impact": "preconditioned", "impact_normalize": "dot", "task_weights": "alike"}
    | {"update": "evidence", "divide_by_p": False, "eta": 0.25, "init": WHERE_CLUSTERED},
    "paper": _COMMON
    | {"impact": "fisher", "impact_normalize": "sum", "task_weights": "raw"}
    | {"update": "standardized", "divide_by_p": True},
    "literal": _COMMON
    | {"impact": "kl", "impact_normalize": "none", "task_weights": "printed"}
    | {"update": "softmax", "divide_by_p": True, "floor": 0.0},
    "authors": _COMMON
    | {"impact": "fisher", "impact_normalize": "authors", "task_weights": "authors"}
    | {"update": "linear", "divide_by_p": True, "floor": 0.0, "ema_beta": 0.2},
}
PRESET_WARNINGS: dict[str, str] = {
    "literal": "dids_preset literal multiplies by equation 12 as printed, which is a distance, and so feeds "
    "the domains that are furthest from the tasks. It is for studying the paper, not for training.",
    "authors": "dids_preset authors ranks domains as the authors' release does, by max - x, which puts those "
    "that are best aligned with the tasks last. It is for studying the release, not for training.",
}

UPDATES = ("evidence", "exponentiated", "standardized", "softmax", "linear")
TASK_WEIGHTS = ("alike", "raw", "printed", "authors")
INITS = ("uniform", "proportional", "importance")
_SWITCHES = ("task_weights", "update", "divide_by_p")  # the other options are numbers, the start, or what is measured


def resolve(preset: str = "default", *, clustered: bool = False, **overrides: Any) -> dict[str, Any]:
    """The final value of every option: the override, or the preset's value if the override is None.

    `clustered` says that the run makes its domains, and so has the features that `init` importance compares.
    `trajectory` False makes the task weights `alike`. Raises ValueError, naming the YAML key, for a value that is not
    allowed.

    >>> resolve("paper", eta=0.2)["update"], resolve("paper", eta=0.2)["eta"]
    ('standardized', 0.2)
    """
    require_choice("dids_preset", preset, PRESETS)
    values = PRESETS[preset] | {key: value for key, value in overrides.items() if value is not None}
    if values["init"] == WHERE_CLUSTERED:
        values["init"] = "importance" if clustered else "uniform"
    require_choice("dids_impact", values["impact"], IMPACT_KINDS)
    require_choice("dids_impact_normalize", values["impact_normalize"], IMPACT_NORMALIZATIONS)
    require_choice("dids_task_weights", values["task_weights"], TASK_WEIGHTS)
    require_choice("dids_update", values["update"], UPDATES)
    require_choice("dids_init", values["init"], INITS)
    for key in ("trajectory", "divide_by_p"):
        require_bool(f"dids_{key}", values[key])
    for key in ("ema_beta", "floor"):
        require_share(f"dids_{key}", values[key])
    require_positive("dids_eta", values["eta"])
    if not values["trajectory"]:
        values["task_weights"] = "alike"
    if values["update"] == "evidence":
        _require_errors(values)
    return values


def is_the_method(options: Mapping[str, Any]) -> bool:
    """Whether resolved options leave every piece of the update as in `dids.py`.

    >>> is_the_method(resolve()), is_the_method(resolve("paper"))
    (True, False)
    """
    return all(options.get(key) == PRESETS["default"][key] for key in _SWITCHES)


def _require_errors(values: Mapping[str, Any]) -> None:
    """Raises ValueError unless the error of the impact is measured, as it is for an inner product alone."""
    if values["impact_normalize"] != "dot":
        raise ValueError(
            f"dids_impact_normalize: got {values['impact_normalize']!r}, allowed with dids_update 'evidence': dot"
        )
    if values["impact"] == "kl":
        raise ValueError("dids_impact: got 'kl', allowed with dids_update 'evidence': preconditioned, fisher, gradient")
