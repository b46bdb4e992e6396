"""Which rows a measurement looks at: the observed ones of each task, and a few of each domain."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from .plan import MixingPlan

Floats = NDArray[np.float64]


class MeasuredRows:
    """Chooses among the training rows of a plan, by a seed. `train_rows` is the data set that is trained on."""

    def __init__(self, plan: MixingPlan, train_rows: Any) -> None:
        self.plan = plan
        self.train_rows = train_rows
        self._terms_D: Floats | None = None

    def of_domain(self, domain: int, draw: int) -> list[Any]:
        """`dids_fresh_samples` of a domain's rows; draw 0 is the same at every update."""
        if self.plan.streamed:
            return list(self.train_rows.some(domain, self.plan.config.dids_fresh_samples, draw))
        members = np.flatnonzero(self.plan.domains_N == domain)
        generator = np.random.default_rng((self.plan.seed, draw, domain))
        chosen = generator.permutation(members)[: self.plan.config.dids_fresh_samples]
        return [self.train_rows[int(i)] for i in np.sort(chosen)]

    def terms_D(self, count: Callable[[list[Any]], float]) -> Floats:
        """Mean terms (labelled tokens) of a row of each domain, of some of its rows, by `count`; looked at once."""
        if self._terms_D is None:
            every = (self.of_domain(domain, draw=0) for domain in range(len(self.plan.domain_names)))
            self._terms_D = np.array([max(count(rows) / len(rows), 1.0) for rows in every])
        return self._terms_D

    def compared(self, kind: str) -> dict[str, Any]:
        """The rows on which two models are compared, by the names of the `tasks` or of the `domains`."""
        if kind == "tasks":
            return dict(self.plan.tasks)
        return {name: self.of_domain(domain, draw=0) for domain, name in enumerate(self.plan.domain_names)}
