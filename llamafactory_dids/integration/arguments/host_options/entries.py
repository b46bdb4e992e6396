"""The entries of the tables. An option of the host's is left alone, handled, or refused for some values."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeAlias

from ...host.objectives import STAGES
from ...settings import Settings


@dataclass(frozen=True)
class Run:
    """A run's settings and the host's arguments, for the conditions of refusals."""

    settings: Settings
    model_args: Any
    data_args: Any
    training_args: Any
    finetuning_args: Any

    @property
    def compares_gradients(self) -> bool:
        """Whether gradients are taken from the tracked layers of the model that trains."""
        return self.settings.needs.gradients

    @property
    def reads_batches(self) -> bool:
        """Whether the domains' gradients come from the training batches."""
        return self.compares_gradients and self.settings.config.dids_domain_gradients == "running"

    @property
    def trains_a_proxy(self) -> bool:
        """Whether a proxy model is trained first, in the same processes."""
        return self.settings.needs.proxy_run is not None

    @property
    def has_pairs_or_answers(self) -> bool:
        """Whether a sample's loss is over a pair or an answer, not over next tokens."""
        return STAGES[self.finetuning_args.stage].objective is not None


class Untouched(NamedTuple):
    """Options that do not affect a mixture, and why; `names` are separated by blanks."""

    why: str
    names: str

    def words(self) -> str:
        """The text for the documentation."""
        return f"left alone: {self.why}"


class Handled(NamedTuple):
    """Options that a mixture supports, and how; `names` are separated by blanks."""

    how: str
    names: str

    def words(self) -> str:
        """The text for the documentation."""
        return f"handled: {self.how}"


ANY_STRATEGY = "mix_strategy {strategy}"

Refuses: TypeAlias = Callable[[Any, Run], bool]


def given(value: Any, _run: Run) -> bool:
    """Refuse any value but false, none and zero."""
    return bool(value)


def given_with_streaming(value: Any, run: Run) -> bool:
    """Refuse any value but false, none and zero in a run that streams."""
    return bool(value) and run.data_args.streaming


class Refused(NamedTuple):
    """An option with refused values. `when` says whether a value is refused in a run, `allowed` what is allowed
    instead.

    `where` names the setting that the value conflicts with ({strategy} and {stage} are the run's), `shown` the value in
    the message. Other entries for the option cover its other values.
    """

    name: str
    allowed: str
    when: Refuses = given
    where: str = ANY_STRATEGY
    shown: Callable[[Any, Run], Any] = lambda value, _run: value

    @property
    def names(self) -> str:
        """The name, under the attribute that the other entries have."""
        return self.name

    def words(self) -> str:
        """The text for the documentation."""
        where = "" if self.where == ANY_STRATEGY else f" with {self.where.format(stage='dpo, kto or rm')}"
        return f"refused; allowed{where}: {self.allowed}"


Entry: TypeAlias = Untouched | Handled | Refused
Table: TypeAlias = tuple[Entry, ...]
