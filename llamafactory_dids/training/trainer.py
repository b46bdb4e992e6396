"""The trainer mixin: in front of a host trainer, it samples by the mixture and shows its batches to the observer."""

import functools
import weakref
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback, trainer_utils

from ..artifacts.run_state import discard_state
from .callback import MixingCallback
from .collator import DOMAIN_COLUMN, DomainCollator
from .controller import MixtureController
from .observer import Observer
from .plan import MixingPlan
from .schedule import samples_per_step


@functools.cache
def _let_torch_load_to_cpu_0() -> None:
    """With several ranks on CPUs, the host asks `torch.load` for an optimizer on `cpu:0`. torch knows only `cpu`."""
    torch.serialization.register_package(
        30, lambda storage: None, lambda storage, location: storage if location == "cpu:0" else None
    )


class MixingTrainerMixin:
    """Adds a `MixingPlan` (keyword `mixing`) to a transformers Trainer. All else is the host's."""

    def __init__(self, *args: Any, mixing: MixingPlan, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        arguments = self.args  # type: ignore[has-type]
        # A weak reference: a cycle would keep the trainer, and with it the process group, alive until Python exits. A
        # gloo thread can abort the process then.
        this = weakref.proxy(self)
        collate = self.data_collator  # type: ignore[has-type]
        self.data_collator = DomainCollator(collate)
        observer = Observer(
            mixing,
            self.model,  # type: ignore[attr-defined]
            collate,
            self.train_dataset,  # type: ignore[attr-defined]
            mixing.make_objective(this),
            batch_size=arguments.train_batch_size,
            precision=self.accelerator.autocast,  # type: ignore[attr-defined]
            device=arguments.device,
        )
        self.mixture = MixtureController(mixing, observer, samples_per_step(arguments), arguments.max_steps)
        self.add_callback(MixingCallback(self.mixture, this))  # type: ignore[attr-defined]

    def _get_train_sampler(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.mixture.sampler

    def log_mixture(self, series: dict[str, float]) -> None:
        """Log through the host to every tracker but the terminal, which gets the table of the update."""
        handler, control = self.callback_handler, self.control  # type: ignore[attr-defined]
        everyone, should_log = handler.callbacks, control.should_log
        handler.callbacks = [one for one in everyone if not isinstance(one, PrinterCallback | ProgressCallback)]
        try:
            self.log(series)  # type: ignore[attr-defined]
        finally:
            handler.callbacks = everyone
            control.should_log = should_log  # logging clears it before the step's own loss is logged

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train. A resumed run restores the mixture of its checkpoint, whose folder `host/resume.py` has settled."""
        if resume_from_checkpoint:
            _let_torch_load_to_cpu_0()
            self.mixture.load(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint, *args, **kwargs)  # type: ignore[misc]

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """Save the host's part. Older checkpoints stay until our part is saved, so one is always complete."""
        arguments, step = self.args, self.state.global_step  # type: ignore[has-type, attr-defined]
        if arguments.should_save:
            discard_state(Path(arguments.output_dir) / f"{trainer_utils.PREFIX_CHECKPOINT_DIR}-{step}")
        limit, arguments.save_total_limit = arguments.save_total_limit, None
        try:
            super()._save_checkpoint(*args, **kwargs)  # type: ignore[misc]
        finally:
            arguments.save_total_limit = limit

    def drop_older_checkpoints(self) -> None:
        """Keep `save_total_limit` checkpoints, by the host's own choice."""
        arguments = self.args  # type: ignore[has-type]
        if not arguments.should_save:
            return
        if hasattr(self, "_rotate_checkpoints"):  # transformers before 5
            self._rotate_checkpoints(use_mtime=True, output_dir=arguments.output_dir)
        else:
            trainer_utils.rotate_checkpoints(
                output_dir=arguments.output_dir,
                save_total_limit=arguments.save_total_limit,
                best_model_checkpoint=self.state.best_model_checkpoint,  # type: ignore[attr-defined]
                use_mtime=True,
            )

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The host's loss. In training, the observer sees the batch and the loss."""
        domains = inputs.pop(DOMAIN_COLUMN, None)
        observer = self.mixture.observer
        if domains is None or not model.training:
            return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        counts_N, batch = observer.objective.counts(inputs), dict(inputs)  # the host pops labels
        term_weight, step_weight = self._weights(counts_N, kwargs.get("num_items_in_batch"))
        observer.watch(domains, counts_N, term_weight, len(inputs["input_ids"]), step_weight)
        wants_outputs = kwargs.pop("return_outputs", False)
        found = super().compute_loss(model, inputs, *args, return_outputs=True, **kwargs)  # type: ignore[misc]
        loss, outputs = found if isinstance(found, tuple) else (found, None)
        observer.watch_outputs(domains, counts_N, outputs, batch)
        observer.watch_loss(loss)
        return (loss, outputs) if wants_outputs else loss

    def _weights(self, counts_N: torch.Tensor, num_items: Any) -> tuple[Any, int]:
        """The weight of a term (a labelled token, a pair) in the loss of `compute_loss`, and the weight of a step."""
        arguments = self.args  # type: ignore[has-type]
        counts_items = self.model_accepts_loss_kwargs or self.compute_loss_func is not None  # type: ignore[attr-defined]
        if num_items is None or not counts_items:
            return 1.0 / counts_N.sum().clamp(min=1), arguments.gradient_accumulation_steps * arguments.world_size
        scale = arguments.world_size if arguments.average_tokens_across_devices else 1
        return scale / num_items, arguments.world_size
