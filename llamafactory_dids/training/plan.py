"""The trainer's input: everything about the mixture that is decided before the model is loaded."""

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
    shuffled: bool = True  # whether a domain's samples come in random order, else in the order of the data
    make_objective: Callable[[Any], Objective] = lambda _trainer: LanguageModelling()  # the loss of a trainer
    clock: Clock = field(default_factory=Clock)
    tokens_D: NDArray[np.float64] | None = None  # mean tokens of a sample, if probabilities are shares of tokens
    reference: Path | None = None  # folder of the run whose losses are the reference of excess losses

    def draws(self, shares_D: NDArray[np.float64]) -> NDArray[np.float64]:
        """The probability of drawing a sample of each domain (D), from the shares of samples or tokens."""
        return shares_D if self.tokens_D is None else normalize(shares_D / self.tokens_D)

    def units(self) -> dict[str, Any]:
        """Additional entries of a line of `mixture.jsonl`, if the probabilities are shares of tokens; else empty."""
        if self.tokens_D is None:
            return {}
        tokens = dict(zip(self.domain_names, np.round(self.tokens_D, 2).tolist(), strict=True))
        return {"share_of": "tokens", "tokens_per_sample": tokens}

    @property
    def domain_names(self) -> tuple[str, ...]:
        return self.domain_map.names
