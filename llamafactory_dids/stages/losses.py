"""Loss of each sample: the mean next-token loss over its labelled tokens, prompt masked as the stage masks it."""

import inspect
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

IGNORE_INDEX = -100


def causal_lm_losses(model: nn.Module, batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """Mean loss of each sample (N, fp32) and its number of labelled tokens (N, int64).

    `batch` is what the collator makes: `labels` (N, S) with -100 where nothing is learned, and the model's
    inputs. Logits are computed only at positions where some sample of the batch has a label.
    """
    labels_NS = batch["labels"]
    targets_NS = F.pad(labels_NS[:, 1:], (0, 1), value=IGNORE_INDEX)
    tokens_N = (targets_NS != IGNORE_INDEX).sum(dim=1)
    positions_J = (targets_NS != IGNORE_INDEX).any(dim=0).nonzero().squeeze(1)
    if len(positions_J) == 0:
        positions_J = positions_J.new_zeros(1)
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    if takes_argument(model, "logits_to_keep"):
        logits_NJV = model(**inputs, logits_to_keep=positions_J, use_cache=False).logits
    else:
        logits_NJV = model(**inputs, use_cache=False).logits[:, positions_J]
    targets_NJ = targets_NS[:, positions_J]
    mask_NJ = targets_NJ != IGNORE_INDEX
    token_losses = F.cross_entropy(logits_NJV[mask_NJ].float(), targets_NJ[mask_NJ], reduction="none")
    sample_of_token = mask_NJ.nonzero()[:, 0]
    sums_N = torch.zeros(len(labels_NS), device=token_losses.device).index_add(0, sample_of_token, token_losses)
    return sums_N / tokens_N.clamp(min=1), tokens_N


def takes_argument(model: nn.Module, name: str) -> bool:
    """Whether the model's own forward, below a PEFT wrapper, has this argument."""
    base = model.get_base_model() if hasattr(model, "get_base_model") else model
    return name in inspect.signature(base.forward).parameters  # type: ignore[operator]
