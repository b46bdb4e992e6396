"""The weights of domains over a training, as Table 9 has them: at each tenth, in percent."""

import json
import random
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from llamafactory_dids.artifacts.mixture_log import MixtureLog, find_log

from .results import FOLDER

TENTHS = 11
SHOWN = 10  # domains, as in the paper


def condense(run: Path) -> dict[str, list[float]]:
    """Each domain's weight in percent at 0%, 10% … 100% of the way from the first update to the last."""
    record = MixtureLog(find_log(run)).record()
    points = np.linspace(record.samples_U[0], record.samples_U[-1], TENTHS)
    lines = np.searchsorted(record.samples_U, points, side="right") - 1  # the last update at or before each point
    percent_DU = 100 * record.probabilities_UD[lines].T
    return {name: [round(float(w), 2) for w in row] for name, row in zip(record.domain_names, percent_DU, strict=True)}


def path_of(preset: str, run: str, folder: Path = FOLDER) -> Path:
    """Where the condensed weights of a run are kept."""
    return folder / preset / "mixtures" / f"{run}.json"


def keep(run: Path, preset: str, name: str, folder: Path = FOLDER) -> None:
    """Condense a run's log into its file."""
    path = path_of(preset, name, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    found = condense(run)
    path.write_text("{\n" + ",\n".join(f"{json.dumps(k)}: {v}" for k, v in found.items()) + "\n}\n", encoding="utf-8")


def read(preset: str, run: str, folder: Path = FOLDER) -> dict[str, list[float]]:
    """The kept weights of a run; none where there are none."""
    path = path_of(preset, run, folder)
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}


def chosen(weights: Mapping[str, Mapping[str, list[float]]], seed: int = 1) -> list[str]:
    """The domains that are shown: ten at random of those that all runs have, the same whenever it is asked."""
    shared = sorted(set.intersection(*(set(of_run) for of_run in weights.values()))) if weights else []
    return sorted(random.Random(seed).sample(shared, min(SHOWN, len(shared))))
