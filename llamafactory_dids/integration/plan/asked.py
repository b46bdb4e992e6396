"""The mixtures that `dids_probs` or `dids_schedule` give, computed for `explain` before there are domains."""

from pathlib import Path

import numpy as np

from ...artifacts.domain_map import load_map
from ...errors import DidsError
from ..settings import Settings
from .probabilities import Sizes, shares_of, sizes_of
from .schedules import KEY, parse_schedule


def asked_mixtures(settings: Settings, sources: dict[str, int]) -> dict[str, dict[str, float]]:
    """Shares by domain at each point of the run; shares by data set if clusters are still to be made.

    `sources` maps data sets to sizes, which divide the rest. Empty if the strategy finds its mixture itself, or if the
    shares name clusters that are still to be made.
    """
    config = settings.config
    if config.dids_schedule is not None:
        points = {f"{point.at:g}": (KEY, point.mixture) for point in parse_schedule(config.dids_schedule)}
    else:
        points = {} if config.dids_probs is None else {"0": ("dids_probs", config.dids_probs)}
    sizes, clusters = _sizes(settings, sources), config.dids_domains == "cluster"
    try:
        found = {at: shares_of(key, mixture, sizes).tolist() for at, (key, mixture) in points.items()}
    except DidsError:
        if clusters:
            return {}
        raise
    return {at: dict(zip(sizes.domains, shares_D, strict=True)) for at, shares_D in found.items()}


def _sizes(settings: Settings, sources: dict[str, int]) -> Sizes:
    if settings.config.dids_domains in ("cluster", "source"):
        return Sizes(tuple(sources), tuple(sources), np.diag(np.array(list(sources.values()), dtype=float)))
    domain_map = load_map(Path(settings.config.dids_domains).expanduser()).of_sources(sources)
    return sizes_of(domain_map, list(sources), domain_map.sizes())
