"""Connects the trainer's steps to the controller, and the controller's series to the trackers."""

from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from .controller import MixtureController


class MixingCallback(TrainerCallback):  # type: ignore[misc]
    """Starts the mixture, updates it after the step that completes a window, and saves it with each checkpoint.

    `trainer` is a `MixingTrainerMixin`, or a weak reference to one.
    """

    def __init__(self, controller: MixtureController, trainer: Any) -> None:
        self.controller = controller
        self.trainer = trainer

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._log(self.controller.start(state.global_step, state.max_steps, self.trainer.model_wrapped))
        if state.global_step >= state.max_steps:  # resumed at its end: the host trains a step before it looks at that
            self.controller.sampler.is_over = control.should_training_stop = True

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self._log(self.controller.after_step(state.global_step))

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        folder = Path(args.output_dir) / f"checkpoint-{state.global_step}"
        self.controller.save(folder, state.global_step)
        self.trainer.drop_older_checkpoints()

    def on_train_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any) -> None:
        self.controller.finish()

    def _log(self, series: dict[str, float]) -> None:
        if series:
            self.trainer.log_mixture(series)
