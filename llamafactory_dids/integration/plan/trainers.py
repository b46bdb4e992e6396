"""Trainers of the host that use a mixture if they get a plan."""

import functools
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ...training.trainer import MixingTrainerMixin
from ..errors import one_line

logger = logging.getLogger(__name__)


def mixing_trainer(host: type) -> Callable[..., Any]:
    """The host's trainer class, with the mixin in front if the arguments have a `mixing` plan."""
    mixed = type(f"Mixing{host.__name__}", (MixingTrainerMixin, host), {})

    @functools.wraps(host, updated=())
    def make(*args: Any, **kwargs: Any) -> Any:
        plan = kwargs.get("mixing")
        if plan is None:
            return host(*args, **kwargs)
        trainer = mixed(*args, **kwargs)
        if plan.mixer.needs.proxy_run is None:  # the main run's report covers its proxy runs
            trainer.add_callback(ReportCallback(plan.folder))  # after the callback that writes the last line
        return trainer

    return make


_trained: list[list[Path]] = []  # for each running workflow of the host, nested ones last: folders with a report due


def reporting(host: Callable[..., Any]) -> Callable[..., Any]:
    """A workflow of the host's that writes the report at its end, after the host's evaluation.

    The report is written even if the evaluation fails. A failing report does not lose the trained model.
    """

    @functools.wraps(host)
    def workflow(*args: Any, **kwargs: Any) -> Any:
        _trained.append([])
        try:
            return host(*args, **kwargs)
        finally:
            for folder in _trained.pop():
                _write(folder)

    return workflow


class ReportCallback(TrainerCallback):  # type: ignore[misc]
    """Registers a report at the end of the training. Outside any workflow, the report is written at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero and _trained:
            _trained[-1].append(self.folder)
        elif state.is_world_process_zero:
            _write(self.folder)


def _write(folder: Path) -> None:
    """Write the report, or log in one line why it failed, whatever the error."""
    try:
        from ...report.html import write_report

        logger.info("report: %s", write_report(folder))
    except Exception as error:
        logger.warning("no report: %s (`llamafactory-dids report %s` tries again)", one_line(error), folder)
