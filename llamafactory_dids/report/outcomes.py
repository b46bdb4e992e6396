"""What became of each observed task: its losses as they were measured, and where they are going, in words."""

import math
from typing import NamedTuple

import numpy as np

from ..core.trajectory import NOTABLE, heading
from .losses import outlook
from .run import Floats, Run
from .words import t


class TaskOutcome(NamedTuple):
    """A task's losses: before the training, at the first measurement after it began, the last, and the lowest.

    `first` and `last` are None where nothing was measured after the training began. `trend` is where it is going, in
    words.
    """

    name: str
    before: float | None
    first: float | None
    last: float | None
    lowest: float | None
    trend: str

    @property
    def change(self) -> float | None:
        """Last minus first, both measured while it trained; None where there are not two."""
        return None if self.first is None or self.last is None else self.last - self.first


def task_outcomes(run: Run) -> list[TaskOutcome]:
    """Each task that has a finite loss."""
    outcomes = []
    training_U = run.record.samples_U > 0
    for name, losses_U in zip(run.record.task_names, run.record.task_losses_UT.T, strict=True):
        finite_U = np.isfinite(losses_U)
        if not finite_U.any():
            continue
        before, seen = losses_U[finite_U & ~training_U], losses_U[finite_U & training_U]
        outcomes.append(
            TaskOutcome(
                name,
                float(before[0]) if len(before) else None,
                float(seen[0]) if len(seen) else None,
                float(seen[-1]) if len(seen) else None,
                float(seen.min()) if len(seen) else None,
                trend(losses_U) if len(seen) else t("measured before the training alone"),
            )
        )
    return outcomes


def learned(tasks: list[TaskOutcome]) -> str:
    """On how many tasks the loss fell while it trained; nothing where none was measured twice."""
    changes = [task.change for task in tasks if task.change is not None and task.first != task.last]
    if not changes:
        return ""
    lower = sum(change < 0 for change in changes)
    return t("lower at the end than after the first window on {lower} of {count}", lower=lower, count=len(changes))


def trend(losses_U: Floats) -> str:
    """Where a task's loss is going, in words, with the number that the words are about.

    The table of an update (`training/progress.py`) has the same rule, with two differences. It says that a last loss is
    not finite; this looks at finite losses alone. A rise between two measurements is no fall there, and a negative one
    here.
    """
    seen = losses_U[np.isfinite(losses_U)]
    last, lowest = float(seen[-1]), float(seen.min())
    if len(seen) < 2:
        return t("measured once")
    found = outlook(losses_U)
    step = float(seen[-2] - last)
    fall = step if found is None else found.decay.at(len(losses_U) - 1) - found.next_loss
    faster = found is not None and last < found.decay.at(len(losses_U) - 1) - NOTABLE * last and step > NOTABLE * last
    going = heading(last, lowest, max(fall, step) if faster else fall)
    if going == "above its lowest":
        return t("{rise} above its lowest, {lowest}", rise=f"{last - lowest:.3f}", lowest=f"{lowest:.3f}")
    if going == "level":
        return t("levelled off") if found is not None else t("level")
    if found is None:
        return t("falling")
    if faster:
        return t("still falling, and faster than the fit")
    return t("still falling: the fit expects {loss} one window on", loss=f"{found.next_loss:.3f}")


def perplexity(loss: float) -> float:
    """exp(loss): of a loss in nats a token."""
    return math.exp(min(loss, 700.0))
