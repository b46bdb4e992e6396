"""What a training minimises, sample by sample: the stage's own loss, as a mean over terms.

A term is what the stage's training loss weighs the same: a labelled token of a language model, a pair of answers
(preference, reward model), an answer with its label. All that follows (gradients, Fisher, task and domain losses)
asks an `Objective` and knows no stage. A sample may be several rows of the model's batch, stacked view by view: with
N samples, row r is of sample r mod N. Language modelling is here; `integration/objectives.py` has the stages whose
losses are the host's.
"""

import inspect
from collections.abc import Mapping
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORE_INDEX = -100


class Objective(Protocol):
    """The loss of each of N samples of a batch; what a batch holds is between the stage's collator and this."""

    def counts(self, batch: Mapping[str, Any]) -> Tensor:
        """The terms of each sample (N, int64), told by the batch alone."""
        ...

    def terms(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss of each of J terms (fp32), and the sample that each is of (J).

        The gradient, if any is wanted, is that of one forward pass of `model`; what else the loss needs (a reference
        model) runs without one.
        """
        ...

    def training_losses(self, outputs: Any, batch: Mapping[str, Any]) -> Tensor | None:
        """Loss of each sample (N, fp32) of the training batch that just went forward, without another pass.

        `outputs` are those of the host's `compute_loss`; None where they do not tell.
        """
        ...


def sample_losses(objective: Objective, model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Mean loss of each sample over its terms (N, fp32), 0 where it has none, and how many it has (N)."""
    counts_N = objective.counts(batch)
    losses_J, samples_J = objective.terms(model, batch)
    sums_N = torch.zeros(len(counts_N), device=losses_J.device).index_add(0, samples_J, losses_J)
    return sums_N / counts_N.clamp(min=1), counts_N


class LanguageModelling:
    """Next-token loss over the labelled tokens, the prompt masked as the stage masks it.

    A batch has `labels` (N, S) with -100 where nothing is learned, and the model's inputs.
    """

    def counts(self, batch: Mapping[str, Any]) -> Tensor:
        """Labelled tokens of each sample."""
        return (batch["labels"][:, 1:] != IGNORE_INDEX).sum(dim=1)

    def terms(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss of each labelled token, sample by sample.

        Logits are computed only at positions where some sample of the batch has a label.
        """
        targets_NS = _targets(batch)
        positions_Q = (targets_NS != IGNORE_INDEX).any(dim=0).nonzero().squeeze(1)
        if len(positions_Q) == 0:
            positions_Q = positions_Q.new_zeros(1)
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        if takes_argument(model, "logits_to_keep"):
            logits_NQV = model(**inputs, logits_to_keep=positions_Q, use_cache=False).logits
        else:
            logits_NQV = model(**inputs, use_cache=False).logits[:, positions_Q]
        targets_NQ = targets_NS[:, positions_Q]
        spent = type(logits_NQV.grad_fn).__name__ in _MAKERS
        losses_NQ: Tensor = _CrossEntropy.apply(logits_NQV, targets_NQ, spent)
        mask_NQ = targets_NQ != IGNORE_INDEX
        return losses_NQ[mask_NQ], mask_NQ.nonzero()[:, 0]

    @torch.no_grad()
    def training_losses(self, outputs: Any, batch: Mapping[str, Any]) -> Tensor | None:
        """From the logits that are there already; None where the model gives none (enable_liger_kernel)."""
        logits_NSV = outputs.get("logits") if isinstance(outputs, dict) else getattr(outputs, "logits", None)
        if logits_NSV is None:
            return None
        # sample by sample, since a batch's logits in fp32 can be larger than the model
        pairs = zip(logits_NSV, _targets(batch), strict=True)
        sums = [F.cross_entropy(x.float(), y, reduction="sum") for x, y in pairs]
        return torch.stack(sums) / self.counts(batch).clamp(min=1)


# What makes logits without needing them for its own gradient, so that theirs may take their place.
_MAKERS = ("UnsafeViewBackward0", "MmBackward0", "AddmmBackward0", "IndexBackward0")


class _CrossEntropy(torch.autograd.Function):
    """Next-token losses (N, Q, fp32) of logits (N, Q, V) and targets (N, Q), 0 where there is no target.

    A sample at a time, and with one softmax for both the loss and the gradient, which is made in the forward pass; if
    `spent`, in the place of the logits, which are not read again. Autograd's own way keeps several of their size.
    """

    @staticmethod
    def forward(ctx: Any, logits_NQV: Tensor, targets_NQ: Tensor, spent: bool) -> Tensor:
        losses_NQ = torch.zeros(targets_NQ.shape, device=logits_NQV.device)
        ctx.gradient_NQV = None
        if ctx.needs_input_grad[0]:
            ctx.gradient_NQV = logits_NQV.detach() if spent else torch.empty_like(logits_NQV)
        for sample, (logits_QV, targets_Q) in enumerate(zip(logits_NQV, targets_NQ, strict=True)):
            rows_L = (targets_Q != IGNORE_INDEX).nonzero().squeeze(1)
            into_QV = None if ctx.gradient_NQV is None else ctx.gradient_NQV[sample]
            losses_NQ[sample, rows_L] = _losses_and_gradient(logits_QV, targets_Q[rows_L], rows_L, into_QV)
        return losses_NQ

    @staticmethod
    def backward(ctx: Any, gradients_NQ: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        gradient_NQV, ctx.gradient_NQV = ctx.gradient_NQV, None
        return gradient_NQV.mul_(gradients_NQ[:, :, None]), None, None


def _losses_and_gradient(logits_QV: Tensor, targets_L: Tensor, rows_L: Tensor, into_QV: Tensor | None) -> Tensor:
    """The losses of L rows in fp32; `into_QV`, where there is one, gets their sum's gradient: softmax minus target."""
    whole = len(rows_L) == len(logits_QV)
    logits_LV = (logits_QV if whole else logits_QV[rows_L]).float()
    in_place = whole and into_QV is not None and into_QV.dtype == torch.float32
    targets_L1 = targets_L[:, None]
    target_L, largest_L = logits_LV.gather(1, targets_L1).squeeze(1), logits_LV.amax(dim=1)
    shares_LV = torch.sub(logits_LV, largest_L[:, None], out=into_QV if in_place else None).exp_()
    sums_L = shares_LV.sum(dim=1)
    if into_QV is not None:
        shares_LV.div_(sums_L[:, None])
        shares_LV.scatter_add_(1, targets_L1, shares_LV.new_full(targets_L1.shape, -1.0))
        if not in_place:
            into_QV.zero_()
            into_QV[rows_L] = shares_LV.to(into_QV.dtype)
    return largest_L + sums_L.log() - target_L


def _targets(batch: Mapping[str, Any]) -> Tensor:
    return F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE_INDEX)


def takes_argument(model: nn.Module, name: str) -> bool:
    """Whether the model's own forward, below a PEFT wrapper, has this argument."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return name in inspect.signature(base.forward).parameters  # type: ignore[operator]
