"""What an entry of the tables says: an option of the host's is left alone, handled, or refused for some values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from ...host.objectives import STAGES
from ...settings import Settings


@dataclass(frozen=True)
class Run:
    """A run's settings and the host's arguments, for a refusal to look at."""

    settings: Settings
    model_args: Any
    data_args: Any
    training_args: Any
    finetuning_args: Any

    @property
    def compares_gradients(self) -> bool:
        """Whether gradients are read off the tracked layers of the model that trains."""
        return self.settings.needs.gradients

    @property
    def reads_batches(self) -> bool:
        """Whether the domains' gradients are those of the training batches."""
        return self.compares_gradients and self.settings.config.dids_domain_gradients == "running"

    @property
    def trains_a_proxy(self) -> bool:
        """Whether a proxy model is trained before, in the same processes."""
        return self.settings.needs.proxy_run is not None

    @property
    def has_pairs_or_answers(self) -> bool:
        """Whether a sample's loss is of a pair or an answer, and not of next tokens."""
        return STAGES[self.finetuning_args.stage].objective is not None

    def words(self) -> dict[str, str]:
        """What `Refused.where` may name."""
        return {"strategy": self.settings.strategy, "stage": self.finetuning_args.stage}


class Untouched(NamedTuple):
    """Options that no mixture depends on, and why; `names` are separated by blanks."""

    why: str
    names: str

    def words(self) -> str:
        """As the documentation has it."""
        return f"left alone: {self.why}"


class Handled(NamedTuple):
    """Options that a mixture goes with, and how; `names` are separated by blanks."""

    how: str
    names: str

    def words(self) -> str:
        """As the documentation has it."""
        return f"handled: {self.how}"


ANY_STRATEGY = "mix_strategy {strategy}"

Refuses: TypeAlias = Callable[[Any, Run], bool]


def given(value: Any, _run: Run) -> bool:
    """Any value but false, none and zero is refused."""
    return bool(value)


class Refused(NamedTuple):
    """An option of which some values are refused: `when`, of its value and the run, says which, `allowed` what is left.

    `where` names what it is that the values do not go with; `shown` is the value as the message has it. Other values
    are handled, or left alone, as further entries of the option say.
    """

    name: str
    allowed: str
    when: Refuses = given
    where: str = ANY_STRATEGY
    shown: Callable[[Any, Run], Any] = lambda value, _run: value

    @property
    def names(self) -> str:
        """As the other entries have it."""
        return self.name

    def words(self) -> str:
        """As the documentation has it."""
        where = "" if self.where == ANY_STRATEGY else f" with {self.where.format(stage='dpo, kto or rm')}"
        return f"refused; allowed{where}: {self.allowed}"


Entry: TypeAlias = Untouched | Handled | Refused
Table: TypeAlias = tuple[Entry, ...]
