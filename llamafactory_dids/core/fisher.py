"""Fisher information and the impact of domains on tasks (section 4.2, equations 11 and 12).

All functions use three inner products, <g_D, g_S>, |g_D|^2 and |g_S|^2, in a diagonal metric M of each task. The sums
go over chunks of P, in float64, so no new array of the size D x P is made.

Shapes: `N` samples, `P` tracked parameters, `D` domains, `T` tasks, `C` the entries of one chunk.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from . import devices

Gradients: TypeAlias = Tensor | NDArray[Any]
Array: TypeAlias = NDArray[np.float64]

METRICS = ("preconditioned", "fisher", "gradient")
KINDS = (*METRICS, "kl")
NORMALIZATIONS = ("cosine", "sum", "none", "dot", "authors")
DAMPING = 1e-3  # share of the largest root of a task's Fisher entries
_CHUNK = 1 << 16


class InnerProducts(NamedTuple):
    """Sums over the tracked parameters in the metric M_j of each task j; float64."""

    cross_DT: Array  # <g_D, g_S>_M
    domain_DT: Array  # |g_D|^2_M
    task_T: Array  # |g_S|^2_M


def metric(fisher_TP: Tensor, kind: str, largest_T: Tensor | None = None) -> Tensor:
    """The diagonal M of each task, shaped as `fisher_TP`.

    `preconditioned` is F^(-1/2), `fisher` is F, `gradient` is 1. F^(-1/2) is 1 / (sqrt(F) + damping), the shape of an
    AdamW step; the damping is 1e-3 of the task's largest root. `largest_T` is each task's largest Fisher entry, needed
    if `fisher_TP` has only some of the columns. A task whose F is all zero has M = 0. Raises ValueError for another
    kind.

    >>> metric(torch.tensor([[1.0, 4.0]]), "fisher")
    tensor([[1., 4.]])
    """
    if kind == "gradient":
        return torch.ones_like(fisher_TP)
    if kind == "fisher":
        return fisher_TP
    if kind != "preconditioned":
        raise ValueError(f"dids_impact: got {kind!r}, allowed: {', '.join(METRICS)}")
    largest_T = fisher_TP.amax(dim=1) if largest_T is None else largest_T
    damped_TP = fisher_TP.sqrt() + DAMPING * largest_T.sqrt()[:, None]
    return torch.where(damped_TP == 0, 0.0, damped_TP.reciprocal())


def inner_products(
    domain_gradients_DP: Gradients, task_gradients_TP: Gradients, fisher_TP: Gradients | None, kind: str
) -> InnerProducts:
    """The inner products in the metric `kind`, one of METRICS, summed over chunks of P.

    `fisher_TP` may be None for `gradient`. A gradient that is not finite affects only its own domain's row or its own
    task's column. Raises ValueError for shapes that do not fit, and for another kind.

    >>> inner_products(torch.eye(2), torch.tensor([[2.0, 1.0]]), None, "gradient").cross_DT
    array([[2.],
           [1.]])
    """
    domain_DP, task_TP = torch.as_tensor(domain_gradients_DP), torch.as_tensor(task_gradients_TP)
    scale_TP = _fisher(fisher_TP, task_TP, kind)
    if domain_DP.ndim != 2 or domain_DP.shape[1:] != task_TP.shape[1:]:
        shapes = f"{tuple(domain_DP.shape)} and {tuple(task_TP.shape)}"
        raise ValueError(f"gradients: got shapes {shapes}, allowed: D x P and T x P")
    device = devices.exact(domain_DP.device)
    largest_T = devices.doubled(scale_TP.amax(dim=1)).to(device)
    cross_DT = torch.zeros((len(domain_DP), len(task_TP)), dtype=torch.float64, device=device)
    norm_DT, norm_T = torch.zeros_like(cross_DT), torch.zeros_like(largest_T)
    for domain_DC, task_TC, scale_TC in _chunks(device, domain_DP, task_TP, scale_TP):
        metric_TC = metric(scale_TC, kind, largest_T)
        weighted_TC = metric_TC * task_TC
        cross_DT += domain_DC @ weighted_TC.T
        norm_DT += domain_DC.square_() @ metric_TC.T
        norm_T += (weighted_TC * task_TC).sum(dim=1)
    return InnerProducts(cross_DT.cpu().numpy(), norm_DT.cpu().numpy(), norm_T.cpu().numpy())


def impact(
    domain_gradients_DP: Gradients,
    task_gradients_TP: Gradients,
    fisher_TP: Gradients | None,
    kind: str = "preconditioned",
    normalize: str = "cosine",
) -> Array:
    """`impact_DT`: the effect of a step on each domain on each task, in the metric `kind`.

    - `cosine`: <g_S,g_D> / (|g_S| |g_D|), in [-1, 1], negative if the domain harms the task
    - `sum`: the part of the task's KL that the best step on the domain removes, <g_S,g_D>^2 / (2 |g_D|^2),
      0 if the inner product is negative, made to sum to one over the domains
    - `none`: <g_S,g_D> / |g_D|, negatives 0
    - `dot`: <g_S,g_D> itself, as in DGA; `moments` computes it from single samples, with its error
    - `authors`: (max_i x - x) / sum_i (max_i x - x) with x = <g_S,g_D> / 2, the release's rule, which is inverted

    Kind `kl` is equation 12 itself, and ignores `normalize`. A domain or task whose gradient is zero or not finite has
    a row or column of zeros; `usable_tasks` tells which tasks are usable. Raises ValueError for other names.

    >>> impact(torch.eye(2), torch.tensor([[3.0, -4.0]]), torch.ones(1, 2), "fisher")
    array([[ 0.6],
           [-0.8]])
    """
    if kind not in KINDS:
        raise ValueError(f"dids_impact: got {kind!r}, allowed: {', '.join(KINDS)}")
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"dids_impact_normalize: got {normalize!r}, allowed: {', '.join(NORMALIZATIONS)}")
    products = inner_products(domain_gradients_DP, task_gradients_TP, fisher_TP, "fisher" if kind == "kl" else kind)
    with np.errstate(all="ignore"):  # invalid entries are replaced at the end
        valid_DT = np.isfinite(products.cross_DT + products.domain_DT + products.task_T)
        valid_DT &= (products.domain_DT > 0) & (products.task_T > 0)
        values_DT = _kl(products) if kind == "kl" else _normalized(products, valid_DT, normalize)
    return np.where(valid_DT, values_DT, 0.0)


def directions(task_gradients_TP: Tensor, fisher_TP: Tensor, kind: str = "preconditioned") -> Tensor:
    """`directions_TP` = M_j g_Sj in the metric `kind`, float32. The inner product with a gradient g is <g_S, g>_M, the
    first-order gain of a step along g for the task. Zero for a task whose gradient or direction is zero or not finite.

    >>> directions(torch.tensor([[3.0, -4.0]]), torch.ones(1, 2), "fisher")
    tensor([[ 3., -4.]])
    """
    usable_T = torch.as_tensor(usable_tasks(task_gradients_TP, fisher_TP), device=task_gradients_TP.device)
    found_TP = metric(fisher_TP, kind) * task_gradients_TP
    return torch.where((usable_T & found_TP.isfinite().all(dim=1))[:, None], found_TP, 0.0)


def gram(gradients_DP: Tensor) -> Array:
    """<g_i, g_j> of every two rows, shape D x D, without a metric: R&B's Gram matrix of the domains' gradients.

    >>> gram(torch.tensor([[1.0, 2.0], [0.0, 3.0]]))
    array([[5., 6.],
           [6., 9.]])
    """
    device = devices.exact(gradients_DP.device)
    products_DD = torch.zeros((len(gradients_DP), len(gradients_DP)), dtype=torch.float64, device=device)
    for (exact_DC,) in _chunks(device, gradients_DP):
        products_DD += exact_DC @ exact_DC.T
    return products_DD.cpu().numpy()


def usable_tasks(task_gradients_TP: Gradients, fisher_TP: Gradients | None = None) -> NDArray[np.bool_]:
    """`usable_T`: whether the gradient, and the Fisher diagonal if given, is finite and not all zero.

    >>> usable_tasks(torch.tensor([[1.0, 0.0], [0.0, 0.0], [float("nan"), 1.0]]))
    array([ True, False, False])
    """
    usable_T = _finite_and_nonzero(torch.as_tensor(task_gradients_TP))
    return usable_T if fisher_TP is None else usable_T & _finite_and_nonzero(torch.as_tensor(fisher_TP))


def _normalized(products: InnerProducts, valid_DT: NDArray[np.bool_], normalize: str) -> Array:
    cross_DT, length_DT = products.cross_DT, np.sqrt(products.domain_DT)
    if normalize == "dot":
        return cross_DT
    if normalize == "cosine":
        return np.clip(cross_DT / length_DT / np.sqrt(products.task_T), -1.0, 1.0)
    if normalize == "none":
        return np.maximum(cross_DT, 0.0) / length_DT
    if normalize == "sum":
        return _shares((np.maximum(cross_DT, 0.0) / length_DT) ** 2 / 2.0, valid_DT)
    highest_T = np.where(valid_DT, cross_DT, -np.inf).max(axis=0, initial=-np.inf)
    return _shares((highest_T - cross_DT) / 2.0, valid_DT)


def _shares(values_DT: Array, valid_DT: NDArray[np.bool_]) -> Array:
    """Each column's valid entries divided by their sum; zeros if the sum is zero."""
    values_DT = np.where(valid_DT, values_DT, 0.0)
    total_T = values_DT.sum(axis=0)
    return values_DT / np.where(total_T > 0, total_T, 1.0)


def _kl(products: InnerProducts) -> Array:
    # The square is multiplied out. Cancellation in float64 can make it negative, and a distance cannot be.
    return np.maximum(products.task_T - 2.0 * products.cross_DT + products.domain_DT, 0.0) / 2.0


def _fisher(fisher_TP: Gradients | None, task_TP: Tensor, kind: str) -> Tensor:
    if fisher_TP is None and kind != "gradient":
        raise ValueError(f"fisher: got None, allowed: T x P for dids_impact {kind!r}")
    scale_TP = task_TP if fisher_TP is None else torch.as_tensor(fisher_TP)
    if scale_TP.ndim != 2 or scale_TP.shape != task_TP.shape:
        shapes = f"{tuple(scale_TP.shape)} and {tuple(task_TP.shape)}"
        raise ValueError(f"fisher and task gradients: got shapes {shapes}, allowed: T x P, both the same")
    return scale_TP


def _chunks(device: torch.device, *rows: Tensor) -> Iterator[list[Tensor]]:
    """Float64 copies of the same columns of each tensor. In float32 the square of a gradient could overflow."""
    for start in range(0, rows[0].shape[1], _CHUNK):
        yield [x[:, start : start + _CHUNK].to(device).to(torch.float64, copy=True) for x in rows]


def _finite_and_nonzero(x_TP: Tensor) -> NDArray[np.bool_]:
    size_T = torch.zeros(len(x_TP), dtype=torch.float64, device=devices.exact(x_TP.device))
    for (x_TC,) in _chunks(size_T.device, x_TP):
        size_T += x_TC.abs_().sum(dim=1)
    return ((size_T > 0) & size_T.isfinite()).cpu().numpy()
