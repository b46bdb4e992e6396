"""What `dids_probs` says: numbers, or the log of a run whose mean mixture is taken over."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...artifacts.domain_map import DomainMap
from ...artifacts.mixture_log import MixtureLog, find_log
from ...artifacts.samples import codes
from ...config import split_list
from ...errors import DidsError, refuse

ALLOWED = "numbers from 0 to 1 that sum to 1, or the path of a run's mixture.jsonl"


def check_probabilities(given: str) -> None:
    """Raise DidsError for numbers that are no probabilities, or a path without a whole log."""
    numbers = _numbers(given)
    if numbers is None:
        _mean_of_log(given)
    elif not all(0 <= number <= 1 for number in numbers) or abs(sum(numbers) - 1) > 1e-3:
        raise refuse("dids_probs", given, ALLOWED)


def probabilities_by_domain(given: str, domain_map: DomainMap, sources: list[str]) -> list[float]:
    """`dids_probs` by domain: those of a log by the domains' names, numbers in the order of the domains.

    Numbers by dataset: a dataset's goes to its domains in proportion to their size. Raises DidsError where names or
    counts do not fit.
    """
    numbers, num_domains = _numbers(given), len(domain_map.names)
    if numbers is None:
        return _by_name(given, _mean_of_log(given), domain_map.names)
    if len(numbers) == num_domains:
        return numbers
    if len(numbers) != len(sources):
        raise refuse("dids_probs", given, f"{num_domains} numbers (domains) or {len(sources)} (datasets)")
    counts_SD: NDArray[np.float64] = np.zeros((len(sources), num_domains))
    np.add.at(counts_SD, (codes(domain_map.sources_N, sources), domain_map.domains_N), 1)
    return [float(p) for p in np.array(numbers) @ (counts_SD / counts_SD.sum(axis=1, keepdims=True))]


def _by_name(given: str, mean: dict[str, float], names: tuple[str, ...]) -> list[float]:
    if mean.keys() != set(names):
        lacks = ", ".join(name for name in names if name not in mean) or "none"
        extra = ", ".join(name for name in mean if name not in names) or "none"
        raise DidsError(
            f"dids_probs: {given} has {extra} that this run has not, and lacks {lacks} of this run's domains; allowed: "
            "the log of a run with the same domains (dids_domains may be that run's dids folder)"
        )
    return [mean[name] for name in names]


def _numbers(given: str) -> list[float] | None:
    """The numbers, None for a path."""
    try:
        return [float(word) for word in split_list(given)]
    except ValueError:
        return None


def _mean_of_log(given: str) -> dict[str, float]:
    path = Path(given).expanduser()
    if not path.exists():
        raise refuse("dids_probs", given, ALLOWED)
    return MixtureLog(find_log(path)).record().mean()
