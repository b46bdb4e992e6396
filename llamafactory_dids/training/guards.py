"""What would make a mixture wrong without a word: found while it trains, and told in one line with its cause.

Gradients are taken by hooks on the layers of the model. A library that compiles the model, or puts other modules in the
place of its layers, takes the hooks out of the path of the batches.
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
    """Raise DidsError if a tracked layer is not, or no more, a part of the model that trains."""
    present = set(map(id, model.modules()))
    gone = [name for name, layer in zip(tracked.names, tracked.layers, strict=True) if id(layer) not in present]
    if gone:
        raise DidsError(
            f"{len(gone)} of {len(tracked.names)} layers whose gradients are taken are not in the model that trains, "
            f"the first: block {gone[0]}; others were put in their place (fp8?); allowed: a training that keeps the "
            "model's linear layers, or a mix_strategy without gradients"
        )


def no_gradient_came(strategy: str, model: nn.Module) -> DidsError:
    """The error of a step whose backward pass came by none of the hooks, with the cause that the model shows."""
    compiled = [m for m in model.modules() if getattr(m, "_compiled_call_impl", None) or hasattr(m, "_orig_mod")]
    cause = "the model is compiled (torch_compile)" if compiled else "something took the hooks on its layers out of use"
    return DidsError(
        f"mix_strategy: {strategy} takes gradients from the training batches, and a step gave none: {cause}; allowed: "
        "dids_domain_gradients: fresh, or a training without it"
    )


def check_aligned(tasks: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    """Raise DidsError unless each labelled token of each task's rows is the input token at its place.

    A language model's loss compares place by place: rows made for generation (a prompt, and apart from it an answer)
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


def _aligned(tokens: Sequence[int], labels: Sequence[int]) -> bool:
    tokens_S, labels_S = np.asarray(tokens), np.asarray(labels)
    return tokens_S.shape == labels_S.shape and bool(((labels_S == tokens_S) | (labels_S == IGNORE_INDEX)).all())


def check_impact(
    impact_DT: NDArray[np.float64],
    usable_T: NDArray[np.bool_],
    tasks: Sequence[str],
    gradients_DP: Tensor,
    normalize: str,
) -> None:
    """Raise DidsError where a task has a gradient and yet no domain has an impact on it.

    A mixture that went by it would stay even, and nobody would know why. What `sum` leaves of impacts is their positive
    part, so there it is as it should be if all are negative.
    """
    if normalize == "sum" and bool(gradients_DP.any()):
        return
    silent_T = usable_T & (impact_DT == 0).all(axis=0)
    if silent_T.any():
        raise DidsError(
            f"the impact of all {len(impact_DT)} domains on the task {tasks[int(silent_T.argmax())]!r} is zero, though "
            "the task has a gradient: no gradient of a domain's samples is left; allowed: samples with labels, in a "
            "precision that holds their gradients (bf16 or fp32, not fp16)"
        )


def check_gradients(gradients_DP: Tensor) -> None:
    """Raise DidsError where no domain has a gradient: a mixture that goes by them would stay even without a word."""
    if not bool(gradients_DP.any()):
        raise DidsError(
            f"the gradients of all {len(gradients_DP)} domains are zero; allowed: samples with labels, in a precision "
            "that holds their gradients (bf16 or fp32, not fp16)"
        )
