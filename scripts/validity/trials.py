"""Trainings whose samples are fixed beforehand, and that go back to an earlier state: what common random numbers need.

Shapes: `S` steps, `B` samples of a step.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from llamafactory_dids.core import devices
from llamafactory_dids.stages.batching import pad_collate, to_device
from llamafactory_dids.stages.losses import LanguageModelling
from llamafactory_dids.stages.meter import Meter
from scripts.validity.worlds import Row, Rows, World

OBJECTIVE = LanguageModelling()
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Draws:
    """The samples of S steps: the domain of each, where in the domain it is (a share), and a number that says when it
    is the first to be replaced."""

    seed: int
    domains_SB: NDArray[np.int64]
    places_SB: Floats
    turns_SB: Floats

    @classmethod
    def by(cls, mixture_D: ArrayLike, num_steps: int, batch_size: int, *seed: int) -> "Draws":
        """Domains by a mixture; the same for the same seeds."""
        generator = np.random.default_rng(seed)
        shape = (num_steps, batch_size)
        domains_SB = generator.choice(len(np.asarray(mixture_D)), shape, p=np.asarray(mixture_D))
        places_SB, turns_SB = generator.random(shape), generator.random(shape)
        return cls(int(generator.integers(2**31)), domains_SB, places_SB, turns_SB)

    def with_share(self, domain: int, share: float) -> "Draws":
        """The same draws, but that about `share` of them come from one domain: whichever it is, the same ones do."""
        return replace(self, domains_SB=np.where(self.turns_SB < share, domain, self.domains_SB))

    def steps(self, start: int, stop: int) -> "Draws":
        """Those of some of the steps."""
        part = slice(start, stop)
        return Draws(self.seed, self.domains_SB[part], self.places_SB[part], self.turns_SB[part])

    def rows(self, step: int, rows_D: Mapping[str, Rows]) -> tuple[list[int], list[Row]]:
        """The domain and the row of each sample of a step."""
        domains_B, of_domains = self.domains_SB[step].tolist(), list(rows_D.values())
        pairs = zip(domains_B, self.places_SB[step], strict=True)
        return domains_B, [of_domains[d][int(place * len(of_domains[d]))] for d, place in pairs]


class State(NamedTuple):
    """A training as it stands after some steps."""

    step: int
    weights: dict[str, Tensor]
    optimizer: dict[str, Any]


# What watches a training gets a batch's domains and labelled tokens, and may give back what is to see its loss.
Watch = Callable[[list[int], Tensor], Callable[[Tensor], None] | None]


class Learner:
    """The model of a world in training, on the device that there is, in 32 bits."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.device = devices.here()
        self.model = world.make_model().to(self.device)
        self.collate = pad_collate(world.pad_id)
        how = world.training
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), how.learning_rate, weight_decay=how.weight_decay, foreach=True
        )
        self.step = 0
        self.meter = Meter(self.model, OBJECTIVE, self.collate, device=self.device)

    def rate(self) -> float:
        """The learning rate of the next step: the host's linear schedule."""
        how = self.world.training
        if self.step < how.warmup_steps:
            return how.learning_rate * self.step / how.warmup_steps
        return how.learning_rate * (how.max_steps - self.step) / max(1, how.max_steps - how.warmup_steps)

    def train(self, draws: Draws, watch: Watch = lambda *_: None) -> None:
        """A step for each step of the draws."""
        torch.manual_seed(draws.seed)  # of dropout, where the model has any
        self.model.train()
        for step in range(len(draws.domains_SB)):
            domains_B, rows = draws.rows(step, self.world.rows_D)
            batch = self.batch(rows)
            sees_loss = watch(domains_B, OBJECTIVE.counts(batch))
            loss = self.loss(batch)
            if sees_loss is not None:
                sees_loss(loss)
            self._update(loss)

    def batch(self, rows: Rows) -> dict[str, Any]:
        """Padded, on the device."""
        return to_device(self.collate([dict(row) for row in rows]), self.device)

    def loss(self, batch: Mapping[str, Any]) -> Tensor:
        """The mean over the labelled tokens of a batch."""
        losses_J, _ = OBJECTIVE.terms(self.model, batch)
        return losses_J.mean()

    def _update(self, loss: Tensor) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate()
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.world.training.max_grad_norm)
        self.optimizer.step()
        self.step += 1

    def losses(self, rows_T: Mapping[str, Rows]) -> Floats:
        """Each task's loss: the mean over its samples of the mean over their labelled tokens."""
        return np.array([self.meter.token_losses(rows).mean() for rows in rows_T.values()])

    def state(self) -> State:
        """To come back to."""
        weights = {name: value.detach().clone() for name, value in self.model.state_dict().items()}
        return State(self.step, weights, copy.deepcopy(self.optimizer.state_dict()))

    def restore(self, state: State) -> None:
        """Go back to a state."""
        self.step = state.step
        self.model.load_state_dict(state.weights)
        self.optimizer.load_state_dict(copy.deepcopy(state.optimizer))
        self.optimizer.zero_grad()


def truth(learner: Learner, at: State, *, num_steps: int, share: float, orders: int, seed: int) -> Floats:
    """`truth_RDT`: by how much more each task's held-out loss falls in the next steps if `share` of their samples are
    from a domain, in each of R orders of the samples. Within an order all domains have the same other samples."""
    world = learner.world
    truth_RDT = np.zeros((orders, len(world.rows_D), len(world.held_out_T)))

    def losses_after(draws: Draws) -> Floats:
        learner.restore(at)
        learner.train(draws)
        return learner.losses(world.held_out_T)

    for order in range(orders):
        draws = Draws.by(world.mixture_D, num_steps, world.training.batch_size, seed, at.step, order)
        without_T = losses_after(draws)
        for domain in range(len(world.rows_D)):
            truth_RDT[order, domain] = without_T - losses_after(draws.with_share(domain, share))
    learner.restore(at)
    return truth_RDT
