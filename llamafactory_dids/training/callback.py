"""Tells the controller where the training is, and the trackers what it did."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .controller import MixtureController


class MixingCallback(TrainerCallback):  # type: ignore[misc]
    """Starts the mixture, updates it after the step that completes a window, saves it with each checkpoint."""

    def __init__(
        self,
        controller: MixtureController,
        log: Callable[[dict[str, float]], None],
        drop_older_checkpoints: Callable[[], None],
    ) -> None:
        self.controller = controller
        self.log = log
        self.drop_older_checkpoints = drop_older_checkpoints

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._log(self.controller.start(state.global_step, state.max_steps))

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._log(self.controller.after_step(state.global_step))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self.controller.save(folder, state.global_step)
        self.drop_older_checkpoints()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.controller.finish()

    def _log(self, series: dict[str, float]) -> None:
        if series:
            self.log(series)
