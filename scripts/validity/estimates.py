"""The estimates of a domain's impact on a task that are scored against the truth, by name in one table.

An estimate is a function of a scene that gives `impact_DT`; only its order and proportions within a task count. A new
one is a function and a line in `ESTIMATES`.

Shapes: `P` entries, `K` projected entries, `D` domains, `T` tasks.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from operator import methodcaller

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from llamafactory_dids.core.fisher import METRICS, impact, inner_products, metric
from llamafactory_dids.mixers.dids_options import PRESETS
from scripts.validity.moments import Mean
from scripts.validity.scene import BLOCKS, FRESH, Scene

Floats = NDArray[np.float64]
DEFAULT = PRESETS["default"]
OPTIMIZER = "v^(-1/2)"  # the metric of AdamW's own step
LEAST = 0.05  # of a squared length, what is left at least when the noise in it is taken off


def in_run(scene: Scene, blocks: str, kind: str) -> Floats:
    """What an update is given today: the window's samples along the tasks' directions at its start."""
    return scene.in_run(blocks, kind).mean_DT


def running(scene: Scene, blocks: str, kind: str) -> Floats:
    """What an update was given before: cosines of the window's running gradients and the tasks at its end."""
    tasks = scene.tasks(blocks)
    return impact(scene.running(blocks).all_DP, tasks.gradients_TP, tasks.fisher_TP, kind, "cosine")


def running_debiased(scene: Scene, blocks: str, kind: str) -> Floats:
    """The same cosine, but that the squared length of a domain's gradient is the product of two halves of the window,
    whose noise has nothing in common."""
    found, tasks = scene.running(blocks), scene.tasks(blocks)
    metric_TP = metric_of(scene, blocks, kind)
    products = inner_products(found.all_DP, tasks.gradients_TP, metric_TP, "fisher")
    lengths_DT = _along(found.even_DP * found.odd_DP, metric_TP)
    return _cosine(products.cross_DT, np.maximum(lengths_DT, LEAST * products.domain_DT), products.task_T)


def fresh(scene: Scene, blocks: str, samples: int, kind: str, normalize: str) -> Floats:
    """`impact` of the mean gradient of a few samples of each domain, measured at the checkpoint."""
    gradients_TP = scene.tasks(blocks).gradients_TP
    domains_DP = scene.fresh(blocks).means[samples].gradient
    return impact(domains_DP, gradients_TP, metric_of(scene, blocks, kind), "fisher", normalize)


def fresh_debiased(scene: Scene, blocks: str, samples: int, kind: str, shrunk: bool = False) -> Floats:
    """The cosine of a few samples with their noise taken off the squared length; it may be shrunk by reliability."""
    gradients_TP = scene.tasks(blocks).gradients_TP
    return debiased(scene.fresh(blocks).means[samples], gradients_TP, metric_of(scene, blocks, kind), shrunk)


def debiased(domains: Mean, tasks_TP: Tensor, metric_TP: Tensor, shrunk: bool) -> Floats:
    """The cosines of D domains with T tasks, where |g|^2 - tr(M cov) / n stands for a domain's squared length.

    If `shrunk`, each is drawn to the task's mean by how much of the spread over domains its own error could make:
    spread / (spread + error^2), the spread being the variance over domains less the mean squared error.
    """
    products = inner_products(domains.gradient, tasks_TP, metric_TP, "fisher")
    noise_DT = _along(domains.variance, metric_TP)
    lengths_DT = np.maximum(products.domain_DT - noise_DT, LEAST * products.domain_DT)
    cosines_DT = _cosine(products.cross_DT, lengths_DT, products.task_T)
    if not shrunk:
        return cosines_DT
    errors_DT = _along(domains.variance, (metric_TP * tasks_TP).double().square())
    return shrink(cosines_DT, np.where(lengths_DT > 0, errors_DT / lengths_DT / products.task_T, 0.0))


def shrink(values_DT: Floats, errors_DT: Floats) -> Floats:
    """Values drawn to their mean over domains, each by its squared error."""
    middle_T = values_DT.mean(axis=0)
    spread_T = np.maximum(values_DT.var(axis=0, ddof=1) - errors_DT.mean(axis=0), 0.0)
    total_DT = spread_T + errors_DT
    share_DT = np.divide(spread_T, total_DT, out=np.zeros_like(values_DT), where=total_DT > 0)
    return middle_T + share_DT * (values_DT - middle_T)


def natural(scene: Scene, blocks: str, damping: float) -> Floats:
    """The cosine in the metric (C + damping I)^-1, whole, in the projected space: C is the second moment of the
    mixture's per-sample gradients, damping in units of its mean diagonal."""
    samples_D = [x.double() for x in scene.fresh(blocks).projected_D]
    means_DP = scene.fresh(blocks).means[max(FRESH)].gradient
    domains_DK = scene.projection(blocks).project(means_DP).double()
    tasks_TK = scene.projection(blocks).project(scene.tasks(blocks).gradients_TP).double()
    moments = [share * x.T @ x / len(x) for share, x in zip(scene.world.mixture_D.tolist(), samples_D, strict=True)]
    second_KK = torch.stack(moments).sum(dim=0)
    second_KK.diagonal().add_(damping * second_KK.diagonal().mean())
    steps_KD = torch.linalg.solve(second_KK, domains_DK.T)
    lengths_D1 = (domains_DK.T * steps_KD).sum(dim=0)[:, None]
    return (tasks_TK @ steps_KD).T.div(lengths_D1.sqrt().clamp(min=1e-300)).cpu().numpy()


def metric_of(scene: Scene, blocks: str, kind: str) -> Tensor:
    """The diagonal metric of each task (T, P): one of the product's, or that of the optimizer."""
    if kind == OPTIMIZER:
        return scene.optimizer_metric(blocks).expand_as(scene.tasks(blocks).fisher_TP)
    return metric(scene.tasks(blocks).fisher_TP, kind)


def _along(values_DP: Tensor, metric_TP: Tensor) -> Floats:
    """Sums over the entries of a domain's values, weighted by each task's metric (D, T)."""
    return (values_DP.double() @ metric_TP.double().T).cpu().numpy()


def _cosine(cross_DT: Floats, lengths_DT: Floats, task_T: Floats) -> Floats:
    """From squared lengths; 0 where one is 0. Above 1 where too much noise was taken off a length."""
    squares_DT = lengths_DT * task_T
    return np.divide(cross_DT, np.sqrt(squares_DT), out=np.zeros_like(cross_DT), where=squares_DT > 0)


Estimate = Callable[[Scene], Floats]
TODAY = f"in-run, last tenth, {DEFAULT['impact']}"  # what `default` goes by


def _table() -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for blocks, kind in product(BLOCKS, (DEFAULT["impact"], "gradient")):
        found[f"in-run, {blocks}, {kind}"] = partial(in_run, blocks=blocks, kind=kind)
        found[f"running, {blocks}, {kind}"] = partial(running, blocks=blocks, kind=kind)
        found[f"running, {blocks}, {kind}, debiased"] = partial(running_debiased, blocks=blocks, kind=kind)
    for blocks, n, kind in product(("last half", "all"), FRESH, (*METRICS, OPTIMIZER)):
        name, key = f"fresh {n}, {blocks}, {kind}", {"blocks": blocks, "samples": n, "kind": kind}
        found[name] = partial(fresh, normalize="cosine", **key)
        found[f"{name}, inner product"] = partial(fresh, normalize="dot", **key)
        found[f"{name}, debiased"] = partial(fresh_debiased, **key)
        found[f"{name}, debiased, shrunk"] = partial(fresh_debiased, shrunk=True, **key)
    for blocks, damping in product(("last half", "all"), (0.1, 1.0, 10.0)):
        found[f"whole Fisher, {blocks}, {damping:g}"] = partial(natural, blocks=blocks, damping=damping)
    for steps in (4, 10):
        found[f"probe of {steps} steps"] = methodcaller("probe", steps)
    found["one step as long as 5"] = methodcaller("large_step", 5)
    return found


ESTIMATES = _table()
