"""The loss that a training minimises, sample by sample: the stage's own loss, as a mean over terms.

A term is the unit that the training loss averages over: a labelled token (pt, sft), a pair of answers (dpo, rm), or one
labelled answer (kto). Gradients, Fisher matrices, task and domain losses all use an `Objective`, and know no stage. A
sample may be several rows of the model's batch, stacked view by view: with N samples, row r belongs to sample r mod N.
Language modelling is here; `integration/host/objectives.py` has the stages with a loss of the host's.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core import gpu

IGNORE_INDEX = -100


class Objective(Protocol):
    """The loss of each of N samples of a batch. The stage's collator defines the batch's content."""

    def counts(self, batch: Mapping[str, Any]) -> Tensor:
        """The number of terms of each sample (N, int64), from the batch alone."""
        ...

    def terms(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss of each of J terms (fp32), and the index of each term's sample (J).

        One forward pass of `model` gives the gradient. Other models that the loss needs (a reference) run without
        gradient.
        """
        ...

    def training_losses(self, outputs: Any, batch: Mapping[str, Any]) -> Tensor | None:
        """Loss of each sample (N, fp32) of the training batch that was just computed, without another pass.

        `outputs` comes from the host's `compute_loss`. None if it does not hold the losses.
        """
        ...


def sample_losses(objective: Objective, model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Mean loss of each sample over its terms (N, fp32), 0 without terms; and its number of terms (N)."""
    counts_N = objective.counts(batch)
    losses_J, samples_J = objective.terms(model, batch)
    sums_N = torch.zeros(len(counts_N), device=losses_J.device).index_add(0, samples_J, losses_J)
    return sums_N / counts_N.clamp(min=1), counts_N


class LanguageModelling:
    """Next-token loss over the labelled tokens, with the prompt masked as in the stage.

    A batch has `labels` (N, S), -100 for tokens without a loss, and the model's inputs.
    """

    def counts(self, batch: Mapping[str, Any]) -> Tensor:
        """Number of labelled tokens of each sample."""
        return (batch["labels"][:, 1:] != IGNORE_INDEX).sum(dim=1)

    def terms(self, model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """The loss of each labelled token, sample by sample. Logits are computed only at labels."""
        targets_NS = _targets(batch)
        labelled_NS = targets_NS != IGNORE_INDEX
        samples_J, positions_J = labelled_NS.nonzero(as_tuple=True)
        if empty := len(samples_J) == 0:  # the model runs all the same: other ranks may wait for its collectives
            samples_J = positions_J = samples_J.new_zeros(1)
        inputs = {key: value for key, value in batch.items() if key != "labels"}
        with _before_head(model, lambda hidden_NSH: hidden_NSH[samples_J, positions_J][None], labelled_NS.shape) as cut:
            logits = model(**inputs, use_cache=False).logits
        if not cut:
            logits = logits[samples_J, positions_J][None]
        spent = type(logits.grad_fn).__name__ in _MAKERS
        targets_J = targets_NS[samples_J, positions_J].clamp(min=0)
        losses_J = _cross_entropy(logits.flatten(0, 1), targets_J, spent)
        return (losses_J[:0], samples_J[:0]) if empty else (losses_J, samples_J)

    @torch.no_grad()
    def training_losses(self, outputs: Any, batch: Mapping[str, Any]) -> Tensor | None:
        """The losses, read for free from the graph of the host's loss, or else computed from the logits.

        None without either (enable_liger_kernel).
        """
        targets_NS = _targets(batch)
        labelled_NS = targets_NS != IGNORE_INDEX
        losses_NS = _left_in_graph(_part(outputs, "loss"), targets_NS)
        if losses_NS is None:
            logits_NSV = _part(outputs, "logits")
            if logits_NSV is None or logits_NSV.shape[:2] != targets_NS.shape:
                return None
            losses_NS = torch.zeros(targets_NS.shape, device=logits_NSV.device)
            losses_NS[labelled_NS] = _labelled_losses(logits_NSV, targets_NS, *labelled_NS.nonzero(as_tuple=True))
        return torch.where(labelled_NS, losses_NS, 0).sum(dim=1) / labelled_NS.sum(dim=1).clamp(min=1)


def _part(outputs: Any, name: str) -> Any:
    return outputs.get(name) if isinstance(outputs, dict) else getattr(outputs, name, None)


_FURTHEST = 8  # graph nodes between a loss and its cross-entropy: a division, a router's loss added, a change of type


def _left_in_graph(loss: Any, targets_NS: Tensor) -> Tensor | None:
    """Losses (N, S) from the log-probabilities that a cross-entropy keeps for its backward pass; None without them."""
    nodes = [getattr(loss, "grad_fn", None)]
    for _ in range(_FURTHEST):
        for node in nodes:
            if type(node).__name__ == "NllLossBackward0" and node._saved_target.shape == (targets_NS.numel(),):
                chosen_P1 = node._saved_target.clamp(min=0)[:, None]
                return -node._saved_self.gather(1, chosen_P1).view(targets_NS.shape)
        nodes = [below for node in nodes if node is not None for below, _ in node.next_functions]
    return None


def _labelled_losses(logits_NSV: Tensor, targets_NS: Tensor, samples_J: Tensor, positions_J: Tensor) -> Tensor:
    """Losses (J, fp32) at the labelled positions, a part at a time: a second copy of the logits may not fit."""
    numbers = _WITHOUT_GRADIENT if logits_NSV.device.type == "cpu" else _AT_ONCE_ELSEWHERE
    at_once = max(1, numbers // logits_NSV.shape[2])
    parts = zip(samples_J.split(at_once), positions_J.split(at_once), strict=True)
    losses = [F.cross_entropy(logits_NSV[n, s].float(), targets_NS[n, s], reduction="none") for n, s in parts]
    return torch.cat(losses)


@contextmanager
def _before_head(model: nn.Module, change: Callable[[Tensor], Tensor], shape: torch.Size) -> Iterator[list[bool]]:
    """Change the hidden states (N, S, H) before the language model's head. The yielded list is empty if that failed.

    It fails if a model multiplies by its embedding weights itself, or hides its head.
    """
    head = getattr(model, "get_output_embeddings", lambda: None)()
    taken: list[bool] = []

    def hook(_head: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if taken or not args or args[0].shape[:-1] != shape:
            return None
        taken.append(True)
        return (change(args[0]), *args[1:])

    handle = head.register_forward_pre_hook(hook) if isinstance(head, nn.Module) else None
    try:
        yield taken
    finally:
        if handle is not None:
            handle.remove()


# Operations that do not need their output, the logits, for their own gradient. It may be overwritten.
_MAKERS = ("UnsafeViewBackward0", "MmBackward0", "AddmmBackward0", "IndexBackward0", "UnsqueezeBackward0")
_AT_ONCE = {"cpu": 1 << 21}  # fp32 logits that stay in a cache
_AT_ONCE_ELSEWHERE = 1 << 28  # a GB
_WITHOUT_GRADIENT = 1 << 18  # on a CPU, twice as fast as with eight times as many


def _cross_entropy(logits_JV: Tensor, targets_J: Tensor, spent: bool) -> Tensor:
    """Next-token losses (J, fp32) of logits (J, V) and targets (J); on a GPU by liger-kernel, if installed.

    `spent` says that the logits are not read again: their gradient overwrites them. Autograd's own way keeps several
    tensors of this size.
    """
    ligers = _ligers() if gpu.has_kernels(logits_JV) and logits_JV.requires_grad else None
    if ligers is not None:  # liger overwrites its input, and returns losses in the input's type
        found: Tensor = ligers(logits_JV if spent else logits_JV.clone(), targets_J, reduction="none").float()
        return found
    losses_J: Tensor = _CrossEntropy.apply(logits_JV, targets_J, spent)
    return losses_J


@functools.cache
def _ligers() -> Callable[..., Tensor] | None:
    """liger-kernel's cross-entropy; None if it is not installed, or needs another transformers."""
    try:
        from liger_kernel.transformers.functional import liger_cross_entropy
    except ImportError:
        return None
    return liger_cross_entropy  # type: ignore[no-any-return]


class _CrossEntropy(torch.autograd.Function):
    """Cross-entropy over some rows at a time. One softmax in the forward pass gives both the loss and the gradient."""

    @staticmethod
    def forward(ctx: Any, logits_JV: Tensor, targets_J: Tensor, spent: bool) -> Tensor:
        ctx.gradient_JV = None
        if ctx.needs_input_grad[0]:
            ctx.gradient_JV = logits_JV.detach() if spent else torch.empty_like(logits_JV)
        rows = max(1, _AT_ONCE.get(logits_JV.device.type, _AT_ONCE_ELSEWHERE) // logits_JV.shape[1])
        losses_J = torch.empty(targets_J.shape, device=logits_JV.device)
        for start in range(0, len(targets_J), rows):
            part = slice(start, start + rows)
            into_RV = None if ctx.gradient_JV is None else ctx.gradient_JV[part]
            losses_J[part] = _losses_and_gradient(logits_JV[part], targets_J[part], into_RV)
        return losses_J

    @staticmethod
    def backward(ctx: Any, gradients_J: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[override]
        gradient_JV, ctx.gradient_JV = ctx.gradient_JV, None
        return gradient_JV.mul_(gradients_J[:, None]), None, None


def _losses_and_gradient(logits_RV: Tensor, targets_R: Tensor, into_RV: Tensor | None) -> Tensor:
    """The losses of R rows, fp32. `into_RV`, if given, receives the gradient of their sum: softmax minus target."""
    in_place = into_RV is not None and into_RV.dtype == torch.float32
    logits_RV, targets_R1 = logits_RV.float(), targets_R[:, None]
    target_R, largest_R = logits_RV.gather(1, targets_R1).squeeze(1), logits_RV.amax(dim=1)
    shares_RV = torch.sub(logits_RV, largest_R[:, None], out=into_RV if in_place else None).exp_()
    sums_R = shares_RV.sum(dim=1)
    if into_RV is not None:
        shares_RV.div_(sums_R[:, None])
        shares_RV.scatter_add_(1, targets_R1, shares_RV.new_full(targets_R1.shape, -1.0))
        if not in_place:
            into_RV.copy_(shares_RV)
    return largest_R + sums_R.log() - target_R


def _targets(batch: Mapping[str, Any]) -> Tensor:
    return F.pad(batch["labels"][:, 1:], (0, 1), value=IGNORE_INDEX)
