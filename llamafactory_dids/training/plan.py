"""What the trainer is given: everything about the mixture that was settled before the model was loaded."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..artifacts.domain_map import DomainMap
from ..config import MixingConfig
from ..mixers.base import Mixer
from ..stages.losses import LanguageModelling, Objective


class Spent:
    """Seconds that went into the mixture before the training, by their keys in `cost.json`.

    `domain_seconds`: features of the samples and k-means; 0 where the domains were given or found in the cache.
    `importance_seconds`: features of the tasks' samples, and which domain is nearest to each.
    """

    def __init__(self) -> None:
        self.seconds = {"domain_seconds": 0.0, "importance_seconds": 0.0}

    @contextmanager
    def on(self, key: str) -> Iterator[None]:
        """Count what is done within."""
        began = time.monotonic()
        yield
        self.seconds[key] += time.monotonic() - began


@dataclass(frozen=True)
class MixingPlan:
    """A mixer over D domains, the domain of each of N training samples, and the observed rows of T tasks."""

    strategy: str
    config: MixingConfig
    mixer: Mixer
    domain_map: DomainMap
    domains_N: NDArray[np.int64]
    tasks: Mapping[str, Sequence[Mapping[str, Any]]]
    folder: Path
    seed: int
    streamed: bool = False  # whether the training samples come from streams; `domains_N` is empty then
    shuffled: bool = True  # whether a domain's samples come in a random order, or in that of the data
    make_objective: Callable[[Any], Objective] = lambda _trainer: LanguageModelling()  # what a trainer minimises
    spent: Spent = field(default_factory=Spent)
    reference: Path | None = None  # the folder of the run whose kept losses the mixer's excess losses are against

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names of the D domains."""
        return self.domain_map.names
