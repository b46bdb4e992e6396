"""The outcome of each observed task: its measured losses, and their direction in words."""

import math
from typing import NamedTuple

import numpy as np

from ..core.trajectory import NOTABLE, heading
from .losses import fitted
from .run import Floats, Run
from .words import t


class TaskOutcome(NamedTuple):
    """A task's losses: before the training, then the first, the last and the lowest after it began.

    The latter three are None if nothing was measured after the training began. `trend` is the direction, in words.
    """

    name: str
    before: float | None
    first: float | None
    last: float | None
    lowest: float | None
    trend: str

    @property
    def change(self) -> float | None:
        """Last minus first loss after the training began; None without a measurement."""
        return None if self.first is None or self.last is None else self.last - self.first


def task_outcomes(run: Run) -> list[TaskOutcome]:
    """An outcome for each task that has a finite loss."""
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
    """The number of tasks whose loss fell during training, in words; empty if no task was measured twice."""
    changes = [task.change for task in tasks if task.change is not None and task.first != task.last]
    if not changes:
        return ""
    lower = sum(change < 0 for change in changes)
    return t("lower at the end than after the first window on {lower} of {count}", lower=lower, count=len(changes))


def trend(losses_U: Floats) -> str:
    """The direction of a task's loss, in words, with the number that the words are about.

    The table of an update (`training/progress.py`) has the same rule, with two differences. The table reports a last
    loss that is not finite; this function looks at finite losses alone. Between two measurements, a rise is no fall
    there, and a negative fall here.
    """
    seen = losses_U[np.isfinite(losses_U)]
    last, lowest = float(seen[-1]), float(seen.min())
    if len(seen) < 2:
        return t("measured once")
    decay, step = fitted(losses_U), float(seen[-2] - last)
    fall, faster = step, False
    if decay is not None:
        now, ahead = decay.at(len(losses_U) - 1), decay.at(len(losses_U))
        faster = last < now - NOTABLE * last and step > NOTABLE * last
        fall = max(now - ahead, step) if faster else now - ahead
    going = heading(last, lowest, fall)
    if going == "above its lowest":
        return t("{rise} above its lowest, {lowest}", rise=f"{last - lowest:.3f}", lowest=f"{lowest:.3f}")
    if going == "level":
        return t("level") if decay is None else t("levelled off")
    if decay is None:
        return t("falling")
    if faster:
        return t("still falling, and faster than the fit")
    return t("still falling: the fit expects {loss} one window on", loss=f"{ahead:.3f}")


def perplexity(loss: float) -> float:
    """exp(loss), for a loss in nats per token."""
    return math.exp(min(loss, 700.0))
