"""What the trainer is given: everything about the mixture that was settled before the model was loaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..artifacts.domain_map import DomainMap
from ..config import MixingConfig
from ..mixers.base import Mixer
from ..stages.losses import LanguageModelling, Objective
from .clock import Clock


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
    clock: Clock = field(default_factory=Clock)
    reference: Path | None = None  # the folder of the run whose kept losses the mixer's excess losses are against

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names of the D domains."""
        return self.domain_map.names
