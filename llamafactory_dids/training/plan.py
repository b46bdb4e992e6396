"""What the trainer is given: everything about the mixture that was settled before the model was loaded."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..artifacts.domain_map import DomainMap
from ..config import MixingConfig
from ..core.simplex import normalize
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
    tokens_D: NDArray[np.float64] | None = None  # mean tokens of a sample, where probabilities are shares of tokens
    reference: Path | None = None  # the folder of the run whose kept losses the mixer's excess losses are against

    def draws(self, shares_D: NDArray[np.float64]) -> NDArray[np.float64]:
        """How often a sample of each domain is drawn, so that these are the shares of what they are shares of."""
        return shares_D if self.tokens_D is None else normalize(shares_D / self.tokens_D)

    def units(self) -> dict[str, Any]:
        """What a line of `mixture.jsonl` has beside, where the probabilities are not shares of samples."""
        if self.tokens_D is None:
            return {}
        tokens = dict(zip(self.domain_names, np.round(self.tokens_D, 2).tolist(), strict=True))
        return {"share_of": "tokens", "tokens_per_sample": tokens}

    @property
    def domain_names(self) -> tuple[str, ...]:
        """Names of the D domains."""
        return self.domain_map.names
