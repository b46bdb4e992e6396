"""Loss of each sample: the mean next-token loss over its labelled tokens, prompt masked as the stage masks it."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORE_INDEX = -100


def causal_lm_losses(model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Mean loss of each sample (N, fp32) and its number of labelled tokens (N, int64)."""
    losses_J, samples_J = causal_lm_token_losses(model, batch)
    count = len(batch["labels"])
    tokens_N = torch.bincount(samples_J, minlength=count)
    sums_N = torch.zeros(count, device=losses_J.device).index_add(0, samples_J, losses_J)
    return sums_N / tokens_N.clamp(min=1), tokens_N


def causal_lm_token_losses(model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The loss of each of J labelled tokens (fp32), sample by sample, and the sample that each is of.

    `batch` is what the collator makes: `labels` (N, S) with -100 where nothing is learned, and the model's
    inputs. Logits are computed only at positions where some sample of the batch has a label.
    """
    labels_NS = batch["labels"]
    targets_NS = F.pad(labels_NS[:, 1:], (0, 1), value=IGNORE_INDEX)
    positions_Q = (targets_NS != IGNORE_INDEX).any(dim=0).nonzero().squeeze(1)
    if len(positions_Q) == 0:
        positions_Q = positions_Q.new_zeros(1)
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    if takes_argument(model, "logits_to_keep"):
        logits_NQV = model(**inputs, logits_to_keep=positions_Q, use_cache=False).logits
    else:
        logits_NQV = model(**inputs, use_cache=False).logits[:, positions_Q]
    targets_NQ = targets_NS[:, positions_Q]
    mask_NQ = targets_NQ != IGNORE_INDEX
    losses_J = F.cross_entropy(logits_NQV[mask_NQ].float(), targets_NQ[mask_NQ], reduction="none")
    return losses_J, mask_NQ.nonzero()[:, 0]


@torch.no_grad()
def training_losses(logits_NSV: Tensor, labels_NS: Tensor) -> tuple[Tensor, Tensor]:
    """Mean loss of each sample (N, fp32) of a batch whose logits are there already, and its labelled tokens (N)."""
    targets_NS = F.pad(labels_NS[:, 1:], (0, 1), value=IGNORE_INDEX)
    tokens_N = (targets_NS != IGNORE_INDEX).sum(dim=1)
    # sample by sample, since a batch's logits in fp32 can be larger than the model
    sums = [F.cross_entropy(x.float(), y, reduction="sum") for x, y in zip(logits_NSV, targets_NS, strict=True)]
    return torch.stack(sums) / tokens_N.clamp(min=1), tokens_N


def takes_argument(model: nn.Module, name: str) -> bool:
    """Whether the model's own forward, below a PEFT wrapper, has this argument."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return name in inspect.signature(base.forward).parameters  # type: ignore[operator]
