"""Mixing strategies: pure functions from a state and signals to the probabilities of the domains.

    mixer = create("dids", num_domains=72, num_tasks=9)
    state = mixer.init()
    probabilities_D, state = mixer.update(state, Signals(task_losses_UT, impact_DT))

Strategies use numpy and scipy only. A strategy is one file that exports a factory. Only `dids` has more files:
`dids.py` is the method, `evidence.py` tells differences from noise, and `dids_readings.py` has the factory and the
options for other readings of the paper.
`_BUILT_IN` lists the paper's strategies. Another package adds its own as a Python entry point of the group
`llamafactory_dids.mixers` (examples/custom_mixer), as we do with `odm`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from .balance import balance
from .base import Impact, Mixer, Needs, Signals
from .dga import dga
from .dids_readings import dids
from .doge import doge
from .doremi import doremi
from .importance import importance
from .proportional import proportional
from .schedule import schedule
from .static import static
from .uniform import uniform
from .velocitune import velocitune

__all__ = ["Impact", "Mixer", "Needs", "Signals", "create", "names", "options"]

ENTRY_POINTS = "llamafactory_dids.mixers"

_BUILT_IN: dict[str, Callable[..., Mixer]] = {
    "dids": dids,
    "dga": dga,
    "doge": doge,
    "doremi": doremi,
    "velocitune": velocitune,
    "importance": importance,
    "balance": balance,
    "uniform": uniform,
    "proportional": proportional,
    "static": static,
    "schedule": schedule,
}


def names() -> tuple[str, ...]:
    """The values of `mix_strategy`: our strategies, and the strategies of other packages.

    >>> "dids" in names()
    True
    """
    return tuple(dict.fromkeys([*_BUILT_IN, *sorted(entry.name for entry in entry_points(group=ENTRY_POINTS))]))


def options(name: str) -> tuple[str, ...]:
    """The option names of a strategy: YAML keys without `dids_`, and inputs such as `sizes_D`.

    Raises ValueError for a name that is not in `names()`, or that two packages claim.

    >>> options("static")
    ('probabilities_D',)
    """
    parameters = inspect.signature(_factory(name)).parameters.values()
    return tuple(p.name for p in parameters if p.kind is p.KEYWORD_ONLY)


def create(name: str, num_domains: int, num_tasks: int, **values: Any) -> Mixer:
    """The mixer `name` over D domains and T tasks, with the options of its factory.

    `sizes_D`, the number of samples of each domain, is dropped if the factory does not take it. Raises ValueError for
    an unknown name or option, a value that is not allowed, and D < 1 or T < 0.

    >>> create("proportional", num_domains=2, num_tasks=0, sizes_D=[100, 300]).init().probabilities_D
    array([0.25, 0.75])
    """
    factory, allowed = _factory(name), options(name)
    if num_domains < 1 or num_tasks < 0:
        raise ValueError(f"got {num_domains} domains and {num_tasks} tasks, allowed: at least one domain")
    if unknown := sorted(values.keys() - {*allowed, "sizes_D"}):
        raise ValueError(f"{name}: got unknown option {unknown[0]!r}, allowed: {', '.join(allowed) or 'none'}")
    return factory(num_domains, num_tasks, **{key: value for key, value in values.items() if key in allowed})


@functools.cache
def _factory(name: str) -> Callable[..., Mixer]:
    if name not in names():
        raise ValueError(f"mix_strategy: got {name!r}, allowed: {', '.join(names())}")
    added = list(entry_points(group=ENTRY_POINTS, name=name))
    if len(added) + (name in _BUILT_IN) > 1:
        claims = ", ".join(entry.value for entry in added)
        raise ValueError(f"mix_strategy: {name!r} is claimed more than once ({claims}), allowed: a name of its own")
    if not added:
        return _BUILT_IN[name]
    try:
        return added[0].load()  # type: ignore[no-any-return]
    except (ImportError, AttributeError) as error:
        raise ValueError(f"mix_strategy: {name!r} cannot be loaded from {added[0].value}: {error}") from error
