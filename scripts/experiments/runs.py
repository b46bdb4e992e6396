"""The named runs: those of runs.yaml, and those whose names say what they are, such as `dga_only_gsm8k`.

runs.yaml has a run's overrides, which both presets share, and words that each preset reads at its own size:
`updates`, `budget`, `tasks`, `mix_in`, `spoilt`, `own_proxy`, `of`. A name that is not in the file is a known run with
an ending:

    X_only_TASK       X with one observed task        X_updates_N     X with N updates
    X_mix_in_N        N percent irrelevant data       X_domains_N     N domains
    X_proxy_NAME      another proxy                   X_budget_N      N percent of the samples

The paper preset has some of its own besides: `base` (not trained), `full` (all data, once), `mix_general_N`,
`mix_special_N`.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from llamafactory_dids.errors import DidsError

from .definition import TASKS

FILE = Path(__file__).resolve().parent / "runs.yaml"
PROXIES = {"1b": "meta-llama/Llama-3.2-1B", "8b": "meta-llama/Llama-3.1-8B"}
WORDS = ("updates", "budget", "tasks", "mix_in", "of", "spoilt", "own_proxy")
UNTRAINED, FULL = "base", "full"
_MIX = re.compile(r"mix_(general|special)_(\d+)")
_ENDINGS = {
    "only": re.compile(rf"(.+)_only_({'|'.join(TASKS)})"),
    "updates": re.compile(r"(.+)_updates_(\d+)"),
    "mix_in": re.compile(r"(.+)_mix_in_(\d+)"),
    "domains": re.compile(r"(.+)_domains_(\d+)"),
    "proxy": re.compile(rf"(.+)_proxy_({'|'.join(PROXIES)})"),
    "budget": re.compile(r"(.+)_budget_(\d+)"),
}


def load() -> dict[str, dict[str, Any]]:
    """The runs of the file."""
    runs: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text(encoding="utf-8"))
    return runs


def resolve(name: str, known: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The overrides and words of a run. Raises DidsError for a name that neither the file nor an ending explains."""
    if name in known:
        return dict(known[name])
    for ending, pattern in _ENDINGS.items():
        if match := pattern.fullmatch(name):
            return resolve(match[1], known) | _said_by(ending, match[2])
    raise DidsError(f"run: got {name!r}, allowed: {', '.join(known)}, and these with an ending such as _updates_25")


def _said_by(ending: str, value: str) -> dict[str, Any]:
    if ending == "only":
        return {"tasks": [value]}
    if ending == "updates":
        return {"updates": int(value)}
    if ending == "domains":
        return {"dids_num_domains": int(value)}
    if ending == "proxy":
        return {"dids_proxy_model": PROXIES[value]}
    return {ending: int(value) / 100}


def fixed_mixture(name: str, parts: Mapping[str, str], sizes: Mapping[str, int]) -> dict[str, Any] | None:
    """The overrides of a fixed mixture of Table 10: sources by their size, one part of them N times less; else None.

    `parts` says of each source whether it is `general` or `special` (code and mathematics).
    """
    match = _MIX.fullmatch(name)
    if match is None:
        return None
    weights = {source: size / (int(match[2]) if parts[source] == match[1] else 1) for source, size in sizes.items()}
    total = sum(weights.values())
    probabilities = ",".join(f"{weight / total:.8f}" for weight in weights.values())
    return {"mix_strategy": "static", "dids_domains": "source", "dids_probs": probabilities}
