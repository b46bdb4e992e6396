"""The loop around a mixer (Algorithm 1): when the mixture is updated, and from what.

The tasks are measured once before training. After each window of `dids_update_samples` samples, the observer measures
what the mixer needs, the mixer decides, the sampler gets the new probabilities, and a line is logged. All ranks compute
the same; the first rank writes.
"""

import logging
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from ..artifacts.domain_map import save_map
from ..artifacts.mixture_log import MixtureLog
from ..stages import ranks
from ..stages.bar import beside_bars
from . import checkpoint
from .domain_losses import Seen
from .guards import check_probabilities
from .observer import Observer
from .plan import MixingPlan
from .progress import Progress, measured, tracker_series, update_table
from .schedule import announce, check_window, updates_due
from .streams import sampler_of

logger = logging.getLogger(__name__)


class MixtureController:
    """Owns the sampler, the mixer's state and the log of one training run."""

    def __init__(self, plan: MixingPlan, observer: Observer, samples_per_step: int, max_steps: int = -1) -> None:
        self.plan = plan
        self.observer = observer
        self.config = plan.config
        self.clock = plan.clock
        self.samples_per_step = samples_per_step
        self.log = MixtureLog(plan.folder / "mixture.jsonl")
        self.state: Any = plan.mixer.init()
        check_probabilities(self._strategy, self.state.probabilities_D)
        self.num_updates = 0
        self.max_updates = self.max_steps = 0
        self.is_closed = False  # whether the last line of the log is the closing line
        self.sampler = sampler_of(plan, self.state.probabilities_D, samples_per_step, max_steps)
        if self.measures:
            check_window(self.config, samples_per_step)

    @property
    def _strategy(self) -> str:
        return f"mix_strategy: {self.plan.strategy}"

    @property
    def measures(self) -> bool:
        """Whether the mixture is ever updated."""
        return self.plan.mixer.needs.measures

    # --- the run -----------------------------------------------------------------------------------------

    def start(self, step: int, max_steps: int, model: nn.Module) -> dict[str, float]:
        """Before the first step of `model`, as the trainer wrapped it: announce the plan, measure the tasks, write line
        one.

        A resumed run only announces, and makes the update that is due if it resumes from the last step of a finished
        run. Returns series for the trackers, empty if there is nothing new.
        """
        self.clock.start()
        self.model, self.max_steps = model, max_steps
        self.max_updates = announce(self.plan, self.samples_per_step, max_steps)
        with self.clock.on("update_seconds"):
            self.observer.begin(model)
        if ranks.world()[0] == 0:
            save_map(self.plan.domain_map, self.plan.folder)
            if step == 0:
                self.log.path.unlink(missing_ok=True)
        if step > 0:
            return self._reopen(step) if self.is_closed and step < max_steps else {}
        if self.plan.mixer.needs.tasks and self.plan.tasks:
            logger.info("%s: measuring the tasks before the first step", self.plan.strategy)
        with self.clock.on("update_seconds"):
            self.observer.aim()
        return self._record(self._progress(self.state.probabilities_D, None, None), step=0, applies_from=0)

    def after_step(self, step: int) -> dict[str, float]:
        """Update the mixture if this step completed a window. Returns series for the trackers, else nothing."""
        self.observer.check(self.model)
        if step == self.max_steps:
            return self._close(step)
        due = updates_due(self.config, step, self.samples_per_step)
        return self._window(step, due) if due > self.num_updates else {}

    def _look(self, step: int) -> dict[str, float]:
        """At the end of a window, for a mixture that is never updated: measure and log the losses."""
        with self.clock.on("update_seconds"):
            seen = self.observer.domain_losses.close_window()
            self.observer.look()
        progress = self._progress(self.state.probabilities_D, seen, None)
        return self._record(progress, step, self.sampler.position, fixed=True)

    def _close(self, step: int) -> dict[str, float]:
        """After the last step: measure and log the losses. There is no update, since no sample would be drawn by it."""
        with self.clock.on("update_seconds"):
            looked = self.observer.look()
            seen = self.observer.domain_losses.look()
        progress = self._progress(self.state.probabilities_D, seen, None)
        series = self._record(progress, step, self.sampler.position, closing=True)
        self.is_closed = True
        if looked:
            with beside_bars():
                logger.info("%s: after the last step, and no update\n%s", self.plan.strategy, update_table(progress))
        return series

    def _reopen(self, step: int) -> dict[str, float]:
        """Resume a run that ended here: remove the closing line, and make the update if one is due."""
        self.is_closed = False
        if self.plan.mixer.needs.tasks and self.plan.tasks:
            self.observer.losses.pop()
        if ranks.world()[0] == 0:
            self.log.replace(self.log.read()[:-1])
        self.sampler.seek(step * self.samples_per_step)
        due = updates_due(self.config, step, self.samples_per_step)
        return self._window(step, due) if due > self.num_updates else {}

    def _window(self, step: int, due: int) -> dict[str, float]:
        self.num_updates = due
        return self._update(step) if self.measures else self._look(step)

    def _update(self, step: int) -> dict[str, float]:
        began = time.monotonic()
        before_D = self.state.probabilities_D
        with self.clock.on("update_seconds"):
            seen = self.observer.domain_losses.close_window()
            signals = self.observer.measure(self.num_updates, step * self.samples_per_step, seen.losses_D)
            signals = replace(signals, progress=step / self.max_steps)
            probabilities_D, self.state = _of_first_rank(*self.plan.mixer.update(self.state, signals))
            check_probabilities(self._strategy, probabilities_D)
            # from a whole step on, whatever the ranks and the accumulation within a step
            applies_from = self.sampler.set_probabilities(self.plan.draws(probabilities_D), self.samples_per_step)
        progress = self._progress(before_D, seen, signals.impact_DT)
        series = self._record(progress, step, applies_from)
        said = (
            f"update {self.num_updates} of {self.max_updates} after {step * self.samples_per_step:,} samples, "
            f"in {time.monotonic() - began:.1f} s"
        )
        if np.array_equal(probabilities_D, before_D):
            said += "; the mixture stays as it is, since no domain stands out beyond noise"
        with beside_bars():
            logger.info("%s: %s\n%s", self.plan.strategy, said, update_table(progress))
        return series

    def _progress(
        self, before_D: NDArray[np.float64], seen: Seen | None, impact_DT: NDArray[np.float64] | None
    ) -> Progress:
        tells = self.observer.domain_losses.tells
        return Progress(
            self.plan.domain_names,
            tuple(self.plan.tasks),
            self.plan.mixer.init().probabilities_D,
            before_D,
            self.state.probabilities_D,
            np.stack(self.observer.losses) if self.observer.losses else None,
            impact_DT,
            seen.losses_D if seen is not None and tells else None,
            None if seen is None else seen.terms_D,
        )

    def finish(self) -> None:
        self.observer.finish()
        self.clock.write(self.plan.folder)

    # --- log and checkpoints ------------------------------------------------------------------------------

    def _record(self, progress: Progress, step: int, applies_from: int, **marks: bool) -> dict[str, float]:
        """Log a line, and the cost so far. Returns series for the trackers.

        `marks` name a line without an update, other than the first.
        """
        if ranks.world()[0] == 0:
            self.log.append(self._line(progress, step, applies_from) | marks)
        self.clock.write(self.plan.folder)
        return tracker_series(progress)

    def _line(self, progress: Progress, step: int, applies_from: int) -> dict[str, Any]:
        """A line of the log without its marks."""
        of_update = {} if progress.impact_DT is None else self.state._asdict()
        terms = {f"task_{term}": of_update.get(f"task_{term}_T") for term in ("potential", "weight")}
        drawn_D = self.sampler.drawn().tolist()
        return {
            "step": step,
            "samples_seen": step * self.samples_per_step,
            "seconds": round(self.clock.cost()["seconds"], 3),
            "applies_from_sample": applies_from,
            **measured(progress, terms),
            "samples_drawn": dict(zip(self.plan.domain_names, drawn_D, strict=True)),
            **self.plan.units(),
        }

    def save(self, folder: Path, step: int) -> None:
        """Write into a checkpoint what an exact resumption needs, after the host's files. Every rank must call it."""
        tensors = {f"mixer_{name}": torch.tensor(value) for name, value in self.state._asdict().items()}
        tensors["history"] = torch.tensor(np.stack([p for _, p in self.sampler.history]))
        values = {
            "identity": self.identity,
            "step": step,
            "num_updates": self.num_updates,
            "is_closed": self.is_closed,
            **self.clock.values(),
            "history_starts": [start for start, _ in self.sampler.history],
            "log": self.log.read() if ranks.world()[0] == 0 else [],
        }
        checkpoint.save(folder, values, tensors | self.observer.common(), self.observer.share())

    def load(self, folder: Path) -> None:
        """Restore the mixture of a checkpoint. Raises DidsError if it is incomplete, or belongs to another set-up."""
        loaded = checkpoint.load(folder, self.identity)
        values, tensors = loaded.values, loaded.common
        self.state = type(self.state)(**{name: tensors[f"mixer_{name}"].numpy() for name in self.state._fields})
        for p_D in (self.state.probabilities_D, *tensors["history"].numpy()):
            check_probabilities(str(folder), p_D)
        self.num_updates, self.is_closed = int(values["num_updates"]), bool(values["is_closed"])
        self.clock.restore(values)
        self.sampler.history = list(zip(values["history_starts"], tensors["history"].numpy(), strict=True))
        self.sampler.resume_in(int(values["step"]) * self.samples_per_step // self.sampler.epoch_size)
        self.observer.restore(tensors, loaded.shares)
        if ranks.world()[0] == 0:
            self.log.replace(values["log"])  # the log of the checkpoint, without lines written after it

    @property
    def identity(self) -> dict[str, Any]:
        """The identity that a checkpoint must have."""
        return checkpoint.identity(self.plan, self.samples_per_step)


def _of_first_rank(probabilities_D: NDArray[np.float64], state: Any) -> tuple[NDArray[np.float64], Any]:
    """The first rank's decision. Unlike machines may round a last bit differently, and all samplers must agree."""
    arrays = {"": probabilities_D, **state._asdict()}
    found = ranks.decided_by_first(lambda: {name: array.tolist() for name, array in arrays.items()})
    arrays = {name: np.array(found[name], dtype=array.dtype).reshape(array.shape) for name, array in arrays.items()}
    return arrays.pop(""), type(state)(**arrays)
