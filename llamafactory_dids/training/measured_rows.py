"""The rows of a measurement: the observed rows of each task, and a few rows of each domain."""

from typing import Any

import numpy as np

from ..stages.batching import num_tokens
from .plan import MixingPlan

LOOKED_AT = 256  # training rows whose length is looked at


class MeasuredRows:
    """Chooses among the training rows of a plan, by a seed."""

    def __init__(self, plan: MixingPlan, train_rows: Any) -> None:
        self.plan = plan
        self.train_rows = train_rows

    def of_domain(self, domain: int, draw: int) -> list[Any]:
        """`dids_fresh_samples` rows of a domain. The same `draw` gives the same rows."""
        if self.plan.streamed:
            return list(self.train_rows.some(domain, self.plan.config.dids_fresh_samples, draw))
        members = np.flatnonzero(self.plan.domains_N == domain)
        generator = np.random.default_rng((self.plan.seed, draw, domain))
        chosen = generator.permutation(members)[: self.plan.config.dids_fresh_samples]
        return [self.train_rows[int(i)] for i in np.sort(chosen)]

    def examples(self) -> list[Any]:
        """The rows of all tasks and some training rows, always the same. Streams open slowly, so they add none."""
        rows = [row for rows in self.plan.tasks.values() for row in rows]
        return rows if self.plan.streamed else [*rows, *self._some()]

    def longest(self) -> int:
        """Number of tokens of the longest of some training rows; with streams, of the longest task row."""
        rows = self.examples() if self.plan.streamed else self._some()
        return max(map(num_tokens, rows), default=0)

    def _some(self) -> list[Any]:
        generator = np.random.default_rng(self.plan.seed)
        chosen = generator.permutation(len(self.plan.domains_N))[:LOOKED_AT]
        return [self.train_rows[int(i)] for i in np.sort(chosen)]

    def compared(self, kind: str) -> dict[str, Any]:
        """The rows for comparing two models, by the names of the `tasks` or of the `domains`."""
        if kind == "tasks":
            return dict(self.plan.tasks)
        return {name: self.of_domain(domain, draw=0) for domain, name in enumerate(self.plan.domain_names)}
