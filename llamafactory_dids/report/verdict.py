"""What a run did, in words with numbers, for someone who was not there.

Each sentence says what was measured and no more: whether another mixture had done better is not in one run's log.
"""

from typing import NamedTuple

import numpy as np

from ..config import FEW_UPDATES
from ..core.trajectory import heading
from ..text import beginning, one_line
from .losses import outlook
from .run import Floats, Run

NUM_NAMED = 3
LONGEST_EXAMPLE = 110  # characters


class Move(NamedTuple):
    """How the share of a domain or data set changed; of a domain, how its most typical sample begins."""

    name: str
    start: float
    end: float
    example: str = ""

    @property
    def factor(self) -> float | None:
        """The share at the end, of that at the start; None where it started with none."""
        return self.end / self.start if self.start > 0 else None


class TaskOutcome(NamedTuple):
    """A task's first and last loss, and where it is going, in words."""

    name: str
    first: float
    last: float
    trend: str

    @property
    def change(self) -> float:
        """Last minus first: negative where it fell."""
        return self.last - self.first


class Verdict(NamedTuple):
    """What stands at the top of a report; `sources` goes from the largest gain to the largest loss."""

    headline: str
    fed_more: list[Move]
    fed_less: list[Move]
    sources: list[Move]
    tasks: list[TaskOutcome]
    learned: str
    cautions: list[str]


def percent(share: float) -> str:
    """A share, with about two digits that count."""
    value = 100 * share
    return f"{value:.0f}%" if value >= 99.5 else f"{value:.1f}%" if value >= 1 else f"{value:.2g}%"


def duration(seconds: float) -> str:
    """Seconds as a person says them."""
    if seconds < 120:
        return f"{seconds:.3g} s"
    if seconds < 7200:
        return f"{seconds / 60:.3g} min"
    return f"{seconds / 3600:.3g} h"


def judge(run: Run) -> Verdict:
    """The verdict on a run."""
    record = run.record
    start_D, end_D = record.probabilities_UD[0], record.probabilities_UD[-1]
    moves = _moves(list(record.domain_names), start_D, end_D)
    return Verdict(
        headline=_headline(run, start_D, end_D),
        fed_more=_with_examples(run, [move for move in moves if move.end > move.start][:NUM_NAMED]),
        fed_less=_with_examples(run, [move for move in moves[::-1] if move.end < move.start][:NUM_NAMED]),
        sources=_source_moves(run),
        tasks=(tasks := task_outcomes(run)),
        learned=_learned(tasks),
        cautions=_cautions(run),
    )


def effective_number(shares_D: Floats) -> float:
    """exp(entropy): how many domains an even mixture of the same entropy would have."""
    positive = shares_D[shares_D > 0]
    return float(np.exp(-(positive * np.log(positive)).sum()))


def _headline(run: Run, start_D: Floats, end_D: Floats) -> str:
    what = f"{run.strategy} over {_count(len(end_D), 'domain')}"
    if run.is_fixed:
        return f"{what}: the mixture was fixed, so every domain kept the share that it started with."
    moved = float(np.abs(end_D - start_D).sum()) / 2
    samples = int(run.record.samples_U[-1])
    return (
        f"{what}: in {_count(run.num_updates, 'update')} over {samples:,} training samples, {percent(moved)} of the "
        f"mixture moved from some domains to others. It ends as spread out as {effective_number(end_D):.3g} domains "
        f"with equal shares would be (at the start: {effective_number(start_D):.3g})."
    )


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def _moves(names: list[str], start_D: Floats, end_D: Floats) -> list[Move]:
    order = np.argsort(start_D - end_D, kind="stable")
    return [Move(names[i], float(start_D[i]), float(end_D[i])) for i in order]


def _with_examples(run: Run, moves: list[Move]) -> list[Move]:
    texts = {domain["name"]: domain["typical_texts"] for domain in run.domains}
    return [move._replace(example=_example(texts.get(move.name) or [""])) for move in moves]


def _example(texts: list[str]) -> str:
    """The first text in one line, cut: names such as `code/3` tell a reader nothing, a sample does."""
    return beginning(one_line(texts[0]), LONGEST_EXAMPLE, whole_words=True)


def source_shares(run: Run) -> tuple[list[str], Floats] | None:
    """The probability of each data set at each line, (names, shape (U, S)); None where domains are of no known source.

    A domain of several data sets counts for each by its share of the domain's samples, as the sampler draws.
    """
    if not run.domains:
        return None
    names = list(dict.fromkeys(source for domain in run.domains for source in domain["sources"]))
    weights_DS = np.array([[domain["sources"].get(name, 0) for name in names] for domain in run.domains], dtype=float)
    weights_DS /= np.maximum(weights_DS.sum(axis=1, keepdims=True), 1)
    return names, run.record.probabilities_UD @ weights_DS


def _source_moves(run: Run) -> list[Move]:
    found = source_shares(run)
    if found is None or len(found[0]) == len(run.record.domain_names):
        return []  # the domains are the data sets
    names, shares_US = found
    return _moves(names, shares_US[0], shares_US[-1])


def task_outcomes(run: Run) -> list[TaskOutcome]:
    """Each task that has a finite loss."""
    outcomes = []
    for name, losses_U in zip(run.record.task_names, run.record.task_losses_UT.T, strict=True):
        seen = losses_U[np.isfinite(losses_U)]
        if len(seen):
            outcomes.append(TaskOutcome(name, float(seen[0]), float(seen[-1]), trend(losses_U)))
    return outcomes


def _learned(tasks: list[TaskOutcome]) -> str:
    lower = sum(task.change < 0 for task in tasks)
    return f"lower at the end than at the start on {lower} of {len(tasks)}"


def trend(losses_U: Floats) -> str:
    """Where a task's loss is going, in words, with the number that the words are about.

    The table of an update (`training/progress.py`) has the same rule, with two differences. It says that a last loss is
    not finite; this looks at finite losses alone. A rise between two measurements is no fall there, and a negative one
    here.
    """
    seen = losses_U[np.isfinite(losses_U)]
    last, lowest = float(seen[-1]), float(seen.min())
    if len(seen) < 2:
        return "measured once"
    found = outlook(losses_U)
    fall = seen[-2] - last if found is None else found.decay.at(len(losses_U) - 1) - found.next_loss
    going = heading(last, lowest, fall)
    if going == "above its lowest":
        return f"{going}, {lowest:.3f}"
    if found is None:
        return going
    return "levelled off" if going == "level" else f"still falling: the fit expects {found.next_loss:.3f} one window on"


def _cautions(run: Run) -> list[str]:
    cautions = []
    if 0 < run.num_updates < FEW_UPDATES:
        cautions.append(
            f"{_count(run.num_updates, 'update')}: at least {FEW_UPDATES} are needed for most of the gain "
            "(lower dids_update_samples, or train longer)."
        )
    for name, losses_U in zip(run.record.task_names, run.record.task_losses_UT.T, strict=True):
        if missing := int((~np.isfinite(losses_U)).sum()):
            cautions.append(f"{name}: no finite loss at {missing} of {len(losses_U)} measurements.")
    return cautions
