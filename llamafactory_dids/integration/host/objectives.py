"""The loss that each stage of the host minimises, by the host's own formulas.

A preference or reward stage has one loss for a whole answer, so a sample has one term (`stages/losses.py`). The
formulas are methods of the host's trainers. They are called on instances that have only their settings: a real trainer
needs data and an output folder, which do not exist when domains are made.

In a training, the reference is the trainer's. When domains are made, the reference is the proxy itself: each log-ratio
is zero, and the gradient is the gradient of such a training's first step.
"""

from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from llamafactory.train.dpo.trainer import CustomDPOTrainer
from llamafactory.train.kto.trainer import CustomKTOTrainer
from llamafactory.train.rm.trainer import PairwiseTrainer
from torch import Tensor, nn

from ...stages.losses import LanguageModelling, Objective

Batch = Mapping[str, Any]


class Preference:
    """`stage: dpo`: the loss of a pair of answers, by any `pref_loss`. A batch has all chosen rows, then all rejected.

    The reference is the reference of `trainer`; without a trainer, the model itself.
    """

    def __init__(self, finetuning_args: Any, device: torch.device, trainer: Any = None) -> None:
        self.formulas = _instance(
            CustomDPOTrainer,
            device,
            finetuning_args=finetuning_args,
            beta=finetuning_args.pref_beta,
            loss_type=finetuning_args.pref_loss,
            label_smoothing=finetuning_args.dpo_label_smoothing,
            simpo_gamma=finetuning_args.simpo_gamma,
            ftx_gamma=finetuning_args.pref_ftx,
            ld_alpha=finetuning_args.ld_alpha,
            bco_gemma=0.0,  # refused, since its baseline is a running mean over batches
            f_divergence_type="reverse_kl",
            reference_free=False,
        )
        self.trainer = trainer
        self._kept = _keep_losses(trainer, "compute_preference_loss") if trainer is not None else {}

    def counts(self, batch: Batch) -> Tensor:
        """One term for each pair."""
        return _ones(len(batch["input_ids"]) // 2, batch)

    def terms(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of each pair, `pref_ftx` included, and its index."""
        policy = self.formulas.concatenated_forward(model, dict(batch))
        chosen_N, rejected_N = policy["chosen_logps"], policy["rejected_logps"]
        reference = (
            (chosen_N.detach(), rejected_N.detach())
            if self.trainer is None
            else self.trainer.compute_reference_log_probs(model, dict(batch))
        )
        losses_N, _, _ = self.formulas.compute_preference_loss(chosen_N, rejected_N, *reference)
        losses_N = losses_N - self.formulas.ftx_gamma * policy["chosen_logps_avg"]
        return losses_N.float(), _every(losses_N)

    def training_losses(self, _outputs: Any, _batch: Batch) -> Tensor:
        """The losses that the trainer has just computed."""
        return self._kept["losses"]  # the host has added pref_ftx in place


class Feedback:
    """`stage: kto`: the loss of an answer that is wanted or not.

    Its baseline, the divergence from the reference, has no gradient. It is estimated on the present batch, in training
    and in measurements alike. When domains are made it is zero, since the policy is the reference.
    """

    def __init__(self, finetuning_args: Any, device: torch.device, trainer: Any = None) -> None:
        self.formulas = _instance(
            CustomKTOTrainer,
            device,
            beta=finetuning_args.pref_beta,
            desirable_weight=finetuning_args.kto_chosen_weight,
            undesirable_weight=finetuning_args.kto_rejected_weight,
            loss_type="kto",
            calculate_KL=True,
        )
        self.trainer = trainer
        self._kept = _keep_losses(trainer, "kto_loss") if trainer is not None else {}

    def counts(self, batch: Batch) -> Tensor:
        """One term for each answer."""
        return _ones(len(batch["input_ids"]), batch)

    def terms(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of each answer, weighted by `kto_chosen_weight` or `kto_rejected_weight`, and its index."""
        tags_N = batch["kto_tags"]
        if self.trainer is None:
            _, logps_N, _ = self.formulas.forward(model, batch)
            chosen, rejected, divergence = logps_N[tags_N], logps_N[~tags_N], logps_N.detach()
            reference = (chosen.detach(), rejected.detach(), divergence)
        else:
            chosen, rejected, _, _, divergence, _ = self.formulas.concatenated_forward(model, batch)
            reference = self.trainer.compute_reference_log_probs(model, batch)
        losses_N, _, _, _ = self.formulas.kto_loss(chosen, rejected, divergence, *reference)
        return _in_batch_order(losses_N, tags_N).float(), _every(losses_N)

    def training_losses(self, _outputs: Any, batch: Batch) -> Tensor:
        """The losses that the trainer has just computed."""
        return _in_batch_order(self._kept["losses"], batch["kto_tags"])


class Reward:
    """`stage: rm`: the loss of the value head's scores of a pair of answers. All chosen rows come first."""

    def __init__(self, finetuning_args: Any, device: torch.device, trainer: Any = None) -> None:
        self.formulas = _instance(PairwiseTrainer, device)

    def counts(self, batch: Batch) -> Tensor:
        """One term for each pair."""
        return _ones(len(batch["input_ids"]) // 2, batch)

    def terms(self, model: nn.Module, batch: Batch) -> tuple[Tensor, Tensor]:
        """The loss of each pair, and its index."""
        inputs = {key: value for key, value in batch.items() if key != "labels"}  # the model would add its own loss
        _, outputs = self.formulas.compute_loss(model, inputs, return_outputs=True)
        losses_N = self._losses(outputs)
        return losses_N, _every(losses_N)

    def training_losses(self, outputs: Any, _batch: Batch) -> Tensor:
        """The losses by the scores of the training batch."""
        return self._losses(outputs).detach()

    def _losses(self, outputs: Any) -> Tensor:
        _, chosen_N, rejected_N = outputs
        return -F.logsigmoid(chosen_N.float() - rejected_N.float()).reshape(-1)


def _instance(trainer_class: type, device: torch.device, **settings: Any) -> Any:
    """An instance of a trainer for its formulas alone. Its means are over one rank, since ranks measure separately."""
    made = object.__new__(trainer_class)
    accelerator = SimpleNamespace(device=device, gather_for_metrics=lambda value: value)
    vars(made).update(settings, accelerator=accelerator)
    return made


def _keep_losses(trainer: Any, formula: str) -> dict[str, Tensor]:
    """A dictionary for the losses of the trainer's last batch, filled whenever the trainer calls `formula`."""
    host, kept = getattr(trainer.__class__, formula), {}  # a bound method would keep the trainer alive

    def keeping(*args: Any, **kwargs: Any) -> Any:
        result = host(trainer, *args, **kwargs)
        kept["losses"] = result[0].detach()
        return result

    setattr(trainer, formula, keeping)
    return kept


def _in_batch_order(losses_N: Tensor, tags_N: Tensor) -> Tensor:
    """Losses in the order of the batch, from losses with all wanted answers first."""
    order_N = torch.cat([tags_N.nonzero(), (~tags_N).nonzero()]).squeeze(1)
    return torch.zeros_like(losses_N).index_put((order_N,), losses_N)


def _ones(count: int, batch: Batch) -> Tensor:
    return torch.ones(count, dtype=torch.int64, device=batch["input_ids"].device)


def _every(losses_N: Tensor) -> Tensor:
    return torch.arange(len(losses_N), device=losses_N.device)


# --- by stage ----------------------------------------------------------------------------------------------


class Stage(NamedTuple):
    """A stage's objective (None: next tokens), and the keys of its loss."""

    objective: Callable[..., Objective] | None = None
    keys: tuple[str, ...] = ()
    value_head: bool = False


STAGES = {
    "pt": Stage(),
    "sft": Stage(),
    "dpo": Stage(
        Preference,
        ("pref_loss", "pref_beta", "pref_ftx", "dpo_label_smoothing", "simpo_gamma", "ld_alpha"),
    ),
    "kto": Stage(
        Feedback,
        ("pref_beta", "kto_chosen_weight", "kto_rejected_weight"),
    ),
    "rm": Stage(Reward, value_head=True),
}


def stage_of(finetuning_args: Any) -> Stage:
    """The run's stage. The checks have accepted its name."""
    return STAGES[finetuning_args.stage]


def objective(finetuning_args: Any, device: torch.device, trainer: Any = None) -> Objective:
    """The run's objective. `trainer` has the reference, if there is one."""
    make = stage_of(finetuning_args).objective
    return make(finetuning_args, device, trainer) if make else LanguageModelling()


def of_trainer(trainer: Any) -> Objective:
    return objective(trainer.finetuning_args, trainer.accelerator.device, trainer)


def identity(finetuning_args: Any) -> dict[str, Any]:
    """Inputs that affect a gradient besides model and data; empty for next-token stages."""
    stage = stage_of(finetuning_args)
    if stage.objective is None:
        return {}
    return {"objective": finetuning_args.stage, **{key: getattr(finetuning_args, key) for key in stage.keys}}
