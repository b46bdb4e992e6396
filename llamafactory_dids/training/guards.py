"""Checks while training for faults that would silently spoil the mixture. Each ends the run with its cause in one line.

Hooks on the layers take the gradients. A library that compiles the model, or replaces its layers, can bypass them.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from ..errors import DidsError
from ..stages.batching import is_tokens
from ..stages.layers import TrackedLayers
from ..stages.losses import IGNORE_INDEX


def check_modules(model: nn.Module, tracked: TrackedLayers) -> None:
    """Raise DidsError if a tracked layer is not, or no longer, part of the model that trains."""
    present = set(map(id, model.modules()))
    gone = [name for name, layer in zip(tracked.names, tracked.layers, strict=True) if id(layer) not in present]
    if gone:
        raise DidsError(
            f"{len(gone)} of {len(tracked.names)} layers whose gradients are taken are not in the model that trains, "
            f"the first: block {gone[0]}; others were put in their place (fp8?); allowed: a training that keeps the "
            "model's linear layers, or a mix_strategy without gradients"
        )


def no_gradient_came(strategy: str, model: nn.Module) -> DidsError:
    """The error for a step whose backward pass reached no hook, with the cause as the model shows it."""
    compiled = [m for m in model.modules() if getattr(m, "_compiled_call_impl", None) or hasattr(m, "_orig_mod")]
    cause = "the model is compiled (torch_compile)" if compiled else "something took the hooks on its layers out of use"
    return DidsError(
        f"mix_strategy: {strategy} takes gradients from the training batches, and a step gave none: {cause}; allowed: "
        "dids_domain_gradients: fresh, or a training without it"
    )


def check_aligned(tasks: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Raise DidsError unless each labelled token of each task's rows equals the input token at its position.

    A language model's loss compares position by position. Rows made for generation (a prompt and a separate answer)
    would be measured on the wrong tokens.
    """
    for name, rows in tasks.items():
        for index, row in enumerate(rows):
            for column in (key for key in row if is_tokens(key)):
                labels = row.get(column.removesuffix("input_ids") + "labels")
                if labels is not None and not _aligned(row[column], labels):
                    raise DidsError(
                        f"dids_tasks: the labels of row {index} of {name!r} are not those of its inputs "
                        f"({len(labels)} labels, {len(row[column])} tokens); allowed: rows made for training, not for "
                        "generation"
                    )


def is_labelled(row: Mapping[str, Any]) -> bool:
    """Whether something of a tokenised row is learned; True of a stage whose rows have no labels of their own."""
    labels = [row[name][1:] for name in row if name.endswith("labels")]
    return not labels or any(label != IGNORE_INDEX for part in labels for label in part)


def not_labelled(key: str, name: str) -> DidsError:
    """The error of a data set of which no row is learned from."""
    return DidsError(
        f"{key}: no sample of {name!r} has a token to learn (cutoff_len cuts the answers off, or they are masked); "
        "allowed: a dataset with answers within cutoff_len"
    )


def check_probabilities(whose: str, p_D: NDArray[np.float64]) -> None:
    """Raise DidsError for what nothing can be drawn by, of a strategy of another package or a file that was changed."""
    if not (np.isfinite(p_D).all() and (p_D >= 0).all() and abs(float(p_D.sum()) - 1) < 1e-6):
        raise DidsError(f"{whose}: gives probabilities that are not finite, negative, or do not sum to 1")


def _aligned(tokens: Sequence[int], labels: Sequence[int]) -> bool:
    tokens_S, labels_S = np.asarray(tokens), np.asarray(labels)
    return tokens_S.shape == labels_S.shape and bool(((labels_S == tokens_S) | (labels_S == IGNORE_INDEX)).all())


def check_impact(impact_DT: NDArray[np.float64], usable_T: NDArray[np.bool_], tasks: Sequence[str]) -> None:
    """Raise DidsError if a task has a gradient and no domain has an impact on it.

    The mixture would stay even, and nobody would know why.
    """
    silent_T = usable_T & (impact_DT == 0).all(axis=0)
    if silent_T.any():
        raise DidsError(
            f"the impact of all {len(impact_DT)} domains on the task {tasks[int(silent_T.argmax())]!r} is zero, though "
            "the task has a gradient: no gradient of a domain's samples is left; allowed: samples with labels, in a "
            "precision that holds their gradients (bf16 or fp32, not fp16)"
        )


def check_gradients(gradients_DP: Tensor) -> None:
    """Raise DidsError if no domain has a gradient. The mixture would silently stay even."""
    if not bool(gradients_DP.any()):
        raise DidsError(
            f"the gradients of all {len(gradients_DP)} domains are zero; allowed: samples with labels, in a precision "
            "that holds their gradients (bf16 or fp32, not fp16)"
        )
