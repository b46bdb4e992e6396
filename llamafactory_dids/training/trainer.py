"""The trainer mixin: put before a host trainer, it samples by the mixture and lends its batches to the controller."""

from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, ProgressCallback
from transformers.trainer_utils import get_last_checkpoint

from .callback import MixingCallback
from .collator import DOMAIN_COLUMN, DomainCollator
from .controller import MixtureController
from .plan import MixingPlan


class MixingTrainerMixin:
    """Adds a `MixingPlan` (keyword `mixing`) to a transformers Trainer; everything else is the host's."""

    def __init__(self, *args: Any, mixing: MixingPlan, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        arguments = self.args  # type: ignore[has-type]
        collate = self.data_collator  # type: ignore[has-type]
        self.data_collator = DomainCollator(collate)
        per_step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
        self.mixture = MixtureController(
            mixing,
            self.model,  # type: ignore[attr-defined]
            collate,
            self.train_dataset,  # type: ignore[attr-defined]
            mixing.make_objective(self),
            samples_per_step=per_step,
            batch_size=arguments.train_batch_size,
            precision=self.accelerator.autocast,  # type: ignore[attr-defined]
            device=arguments.device,
        )
        self.add_callback(MixingCallback(self.mixture, self.log_mixture))  # type: ignore[attr-defined]

    def _get_train_sampler(self, *_args: Any, **_kwargs: Any) -> Any:
        return self.mixture.sampler

    def log_mixture(self, series: dict[str, float]) -> None:
        """Log through the host, to every tracker but the terminal, where the update has its own table."""
        handler, control = self.callback_handler, self.control  # type: ignore[attr-defined]
        everyone, should_log = handler.callbacks, control.should_log
        handler.callbacks = [one for one in everyone if not isinstance(one, PrinterCallback | ProgressCallback)]
        try:
            self.log(series)  # type: ignore[attr-defined]
        finally:
            handler.callbacks = everyone
            control.should_log = should_log  # logging clears it, and the step's own loss has yet to be logged

    def train(self, resume_from_checkpoint: Any = None, *args: Any, **kwargs: Any) -> Any:
        """Train; a resumed run takes up the mixture where the checkpoint left it."""
        if resume_from_checkpoint is True:
            resume_from_checkpoint = get_last_checkpoint(self.args.output_dir)  # type: ignore[has-type]
        if resume_from_checkpoint:
            self.mixture.load(Path(resume_from_checkpoint))
        return super().train(resume_from_checkpoint, *args, **kwargs)  # type: ignore[misc]

    def compute_loss(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The host's loss; while training, the running domain gradients look on."""
        domains = inputs.pop(DOMAIN_COLUMN, None)
        if domains is None or not model.training:
            return super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        observer = self.mixture.observer
        counts_N = observer.objective.counts(inputs)
        term_weight = self._term_weight(counts_N, kwargs.get("num_items_in_batch"))
        observer.watch(domains, counts_N, term_weight, len(inputs["input_ids"]))
        if observer.domain_losses is None:
            loss = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
        else:
            batch = dict(inputs)  # the host may take the labels away
            kwargs["return_outputs"] = True
            loss, outputs = super().compute_loss(model, inputs, *args, **kwargs)  # type: ignore[misc]
            observer.watch_outputs(domains, outputs, batch)
        observer.watch_loss(loss[0] if isinstance(loss, tuple) else loss)
        return loss

    def _term_weight(self, counts_N: torch.Tensor, num_items: Any) -> Any:
        """What a term (a labelled token, a pair) weighs in the loss that `compute_loss` returns."""
        counts_items = self.model_accepts_loss_kwargs or self.compute_loss_func is not None  # type: ignore[attr-defined]
        if num_items is None or not counts_items:
            return 1.0 / counts_N.sum().clamp(min=1)
        scale = self.args.world_size if self.args.average_tokens_across_devices else 1  # type: ignore[has-type]
        return scale / num_items
