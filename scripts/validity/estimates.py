"""The estimates of a domain's impact on a task that are scored against the truth, by name in one table.

An estimate is a function of a scene that gives `impact_DT`; only its order and proportions within a task count. A new
one is a function and a line in `ESTIMATES`. The log names the commit that has those that lost: noise taken off lengths,
values drawn to their mean, a whole Fisher matrix, the optimizer's metric, one large step.

Shapes: `P` entries, `D` domains, `T` tasks.
"""

from collections.abc import Callable
from functools import partial
from itertools import product
from operator import methodcaller

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from llamafactory_dids.core.fisher import METRICS, impact
from llamafactory_dids.mixers.dids_options import PRESETS
from scripts.validity.scene import BLOCKS, FRESH, Scene

Floats = NDArray[np.float64]
DEFAULT = PRESETS["default"]


def in_run(scene: Scene, blocks: str, kind: str) -> Floats:
    """What an update is given today: the window's samples along the tasks' directions at its start."""
    return scene.in_run(blocks, kind).mean_DT


def running(scene: Scene, blocks: str, kind: str) -> Floats:
    """What an update was given before: cosines of the window's running gradients and the tasks at its end."""
    return _cosines(scene, blocks, kind, scene.running(blocks))


def fresh(scene: Scene, blocks: str, samples: int, kind: str) -> Floats:
    """The same of the mean gradient of a few samples of each domain, measured at the checkpoint."""
    return _cosines(scene, blocks, kind, scene.fresh(blocks, samples))


def _cosines(scene: Scene, blocks: str, kind: str, gradients_DP: Tensor) -> Floats:
    tasks = scene.tasks(blocks)
    return impact(gradients_DP, tasks.gradients_TP, tasks.fisher_TP, kind, "cosine")


Estimate = Callable[[Scene], Floats]
TODAY = f"in-run, last tenth, {DEFAULT['impact']}"  # what `default` goes by


def _table() -> dict[str, Estimate]:
    found: dict[str, Estimate] = {}
    for blocks, kind in product(BLOCKS, (DEFAULT["impact"], "gradient")):
        found[f"in-run, {blocks}, {kind}"] = partial(in_run, blocks=blocks, kind=kind)
        found[f"running, {blocks}, {kind}"] = partial(running, blocks=blocks, kind=kind)
    for blocks, n, kind in product(("last half", "all"), FRESH, METRICS):
        found[f"fresh {n}, {blocks}, {kind}"] = partial(fresh, blocks=blocks, samples=n, kind=kind)
    for steps in (4, 10):
        found[f"probe of {steps} steps"] = methodcaller("probe", steps)
    return found


ESTIMATES = _table()
