"""Trainers of the host that mix where they are given a plan."""

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
    """The host's trainer class, with the mixin in front when there is a `mixing` plan among the arguments."""
    mixed = type(f"Mixing{host.__name__}", (MixingTrainerMixin, host), {})

    @functools.wraps(host, updated=())
    def make(*args: Any, **kwargs: Any) -> Any:
        plan = kwargs.get("mixing")
        if plan is None:
            return host(*args, **kwargs)
        trainer = mixed(*args, **kwargs)
        if plan.mixer.needs.proxy_run is None:  # what a proxy run did, the main run's report says
            trainer.add_callback(ReportCallback(plan.folder))  # behind the mixture's, which closes the account
        return trainer

    return make


class ReportCallback(TrainerCallback):  # type: ignore[misc]
    """Writes the report and its pictures when the training ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            self._write()

    def _write(self) -> None:
        """A report that cannot be written is no reason to lose a trained model, whatever the error."""
        try:
            from ...report.html import write_report

            logger.info("report: %s", write_report(self.folder))
        except Exception as error:
            logger.warning("no report: %s (`llamafactory-dids report %s` tries again)", one_line(error), self.folder)
