"""Mixing strategies: pure functions from a state and signals to the probabilities of the domains.

    mixer = create("dids", num_domains=72, num_tasks=9)
    state = mixer.init()
    probabilities_D, state = mixer.update(state, Signals(task_losses_UT, impact_DT))

numpy and scipy only. A strategy is one file that exports a factory; `_FACTORIES` below lists them.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from .base import Impact, Mixer, Needs, Signals
from .dga import dga
from .dids import dids
from .proportional import proportional
from .static import static
from .uniform import uniform

__all__ = ["Impact", "Mixer", "Needs", "Signals", "create", "names", "options"]

_FACTORIES: dict[str, Callable[..., Mixer]] = {
    "dids": dids,
    "dga": dga,
    "uniform": uniform,
    "proportional": proportional,
    "static": static,
}


def names() -> tuple[str, ...]:
    """The values of `mix_strategy` that are ours."""
    return tuple(_FACTORIES)


def options(name: str) -> tuple[str, ...]:
    """The option names of a strategy: YAML keys without `dids_`, and `sizes_D` and the like."""
    parameters = inspect.signature(_FACTORIES[name]).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def create(name: str, num_domains: int, num_tasks: int, **values: Any) -> Mixer:
    """The mixer `name` over D domains and T tasks; options as in its factory. All take `sizes_D` (samples a
    domain).

    Raises ValueError for an unknown name or option, a value that is not allowed, and D < 1 or T < 0.
    """
    if name not in _FACTORIES:
        raise ValueError(f"mix_strategy: got {name!r}, allowed: {', '.join(_FACTORIES)}")
    if num_domains < 1 or num_tasks < 0:
        raise ValueError(f"got {num_domains} domains and {num_tasks} tasks, allowed: at least one domain")
    if unknown := sorted(values.keys() - set(options(name))):
        raise ValueError(f"{name}: got unknown option {unknown[0]!r}, allowed: {', '.join(options(name))}")
    return _FACTORIES[name](num_domains, num_tasks, **values)
