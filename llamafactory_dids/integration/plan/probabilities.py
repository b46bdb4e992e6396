"""A mixture as a YAML file gives it: shares by name, numbers in order, a word, or a run's log (its mean mixture).

Shapes: `S` datasets (sources), `D` domains.
"""

import logging
import math
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ... import mixers
from ...artifacts.domain_map import DomainMap
from ...artifacts.mixture_log import MixtureLog, find_log
from ...artifacts.samples import UNKNOWN, codes
from ...config import split_list
from ...errors import DidsError, refuse
from ..errors import nearest

logger = logging.getLogger(__name__)

ALLOWED = "NAME=NUMBER, …, numbers from 0 to 1 that sum to 1, or the path of a run's mixture.jsonl"
WORDS = ("proportional", "uniform")  # strategies whose mixture follows from the sizes alone
NEAR = 1e-3  # tolerance of sums of decimals that should be 1

Shares = Mapping[str, float]


class Sizes(NamedTuple):
    """The amount of each source in each domain, in samples or tokens. An unknown size, as of a stream, is 0."""

    domains: tuple[str, ...]
    sources: tuple[str, ...]
    amounts_SD: NDArray[np.float64]


def sizes_of(domain_map: DomainMap, sources: Sequence[str], sizes_D: ArrayLike | None) -> Sizes:
    """The domains' sizes, divided over the sources like the map's samples of them. `sizes_D` None means unknown sizes.

    A given map may also have samples of data sets that this run does not have.
    """
    counts_SD = np.zeros((len(sources), len(domain_map.names)))
    sources_N = codes(domain_map.sources_N, sources)
    known_N = sources_N != UNKNOWN
    np.add.at(counts_SD, (sources_N[known_N], domain_map.domains_N[known_N]), 1)
    size_D = np.zeros(len(domain_map.names)) if sizes_D is None else np.asarray(sizes_D, dtype=np.float64)
    return Sizes(domain_map.names, tuple(sources), counts_SD * (size_D / np.maximum(counts_SD.sum(axis=0), 1)))


def check_mixture(
    key: str, text: str, sources: Sequence[str], domains: Sequence[str] | None, share_of: str = "samples"
) -> None:
    """Raise DidsError for a text that is no mixture, for unknown names, and for a log with shares of another unit.

    No data is loaded. `domains` is None if clusters are still to be made. Their names will be a source and a number.
    """
    wanted = _parse(key, text)
    if isinstance(wanted, Path):
        _mean_of_log(wanted)
        if (were := MixtureLog(find_log(wanted)).read()[0].get("share_of", "samples")) != share_of:
            raise refuse("dids_share_of", share_of, f"{were}, of which the shares in {text} are")
    elif isinstance(wanted, Mapping):
        _check_names(key, wanted, sources, domains)
        if names := sources if wanted.keys() <= set(sources) else domains:
            _check_sum(key, text, wanted, names)
    elif isinstance(wanted, list) and not (
        all(0 <= number <= 1 for number in wanted) and abs(math.fsum(wanted) - 1) <= NEAR
    ):
        raise refuse(key, text, ALLOWED)


def shares_of(key: str, text: str, sizes: Sizes) -> NDArray[np.float64]:
    """The mixture by domain (D), which sums to 1. Numbers and names may be for domains or for sources.

    A source's share is divided over its domains by size. Raises DidsError if names, counts or sizes do not fit.
    """
    wanted, num_domains = _parse(key, text), len(sizes.domains)
    if isinstance(wanted, str):
        try:
            return mixers.create(wanted, num_domains, 0, sizes_D=sizes.amounts_SD.sum(axis=0)).init().probabilities_D
        except ValueError:
            raise refuse(key, text, "with streaming, a mixture that needs no size of a dataset") from None
    if isinstance(wanted, Path):
        return _of_log(key, text, _mean_of_log(wanted), sizes.domains)
    if isinstance(wanted, Mapping):
        _check_names(key, wanted, sizes.sources, sizes.domains)
        if wanted.keys() <= set(sizes.domains):
            return _completed(key, text, wanted, sizes.domains, sizes.amounts_SD.sum(axis=0))
        return _over_domains(_completed(key, text, wanted, sizes.sources, sizes.amounts_SD.sum(axis=1)), sizes)
    if len(wanted) not in (num_domains, len(sizes.sources)):
        raise refuse(key, text, f"{num_domains} numbers (domains) or {len(sizes.sources)} (datasets)")
    numbers = np.array(wanted) / math.fsum(wanted)
    return numbers if len(wanted) == num_domains else _over_domains(numbers, sizes)


def _over_domains(shares_S: NDArray[np.float64], sizes: Sizes) -> NDArray[np.float64]:
    shares_D: NDArray[np.float64] = shares_S @ (sizes.amounts_SD / sizes.amounts_SD.sum(axis=1, keepdims=True))
    return shares_D


def _completed(
    key: str, text: str, wanted: Shares, names: Sequence[str], amounts: NDArray[np.float64]
) -> NDArray[np.float64]:
    """A share for each name: the given ones scaled to sum to 1, or the rest of 1 divided over the others by size."""
    _check_sum(key, text, wanted, names)
    total = math.fsum(wanted.values())
    shares = np.array([wanted.get(name, 0.0) for name in names])
    others = np.array([name not in wanted for name in names])
    first = next((name for name in names if name not in wanted), None)
    if first is None or abs(total - 1) <= NEAR:
        if first is not None:
            logger.warning("%s: nothing is drawn from %s, since the others sum to 1", key, first)
        return shares / total
    if not amounts[others].all():
        raise DidsError(
            f"{key}: got {text!r}, which leaves {first!r} a share by its size, which is not known with streaming; "
            "allowed: a number for each"
        )
    left: NDArray[np.float64] = np.where(others, amounts, 0.0)
    return shares + (1 - total) * left / left.sum()


def _check_sum(key: str, text: str, wanted: Shares, names: Sequence[str]) -> None:
    """Raise DidsError if the numbers leave nothing for the names without a number, are all zero, or overflow."""
    try:
        total = math.fsum(wanted.values())
    except OverflowError:
        raise refuse(key, text, "numbers whose sum is finite") from None
    first = next((name for name in names if name not in wanted), None)
    if first is None and total == 0:
        raise refuse(key, text, "a number above 0 for one of them")
    if first is not None and total > 1 + NEAR:
        raise DidsError(
            f"{key}: got {text!r}, whose numbers sum to {total:g} and leave nothing for {first!r}; allowed: a sum "
            "below 1, the rest of which goes to the others by size, or a number for each"
        )


def _check_names(key: str, wanted: Shares, sources: Sequence[str], domains: Sequence[str] | None) -> None:
    known = [*sources, *(domains or ())]
    for name in wanted:
        group, _, number = name.rpartition("/")
        to_be_made = domains is None and number.isdigit() and group in (*sources, "global")
        if name not in known and not to_be_made:
            raise DidsError(f"{key}: got {name!r}, allowed: a dataset or a domain of this run{nearest(name, known)}")
    others = [name for name in wanted if name not in sources]
    if domains is not None and 0 < len(others) < len(wanted) and not wanted.keys() <= set(domains):
        raise refuse(key, others[0], "names of datasets alone, or of domains alone")


def _of_log(key: str, text: str, mean: Shares, names: Sequence[str]) -> NDArray[np.float64]:
    if mean.keys() != set(names):
        lacks = ", ".join(name for name in names if name not in mean) or "none"
        extra = ", ".join(name for name in mean if name not in names) or "none"
        raise DidsError(
            f"{key}: {text} has {extra} that this run has not, and lacks {lacks} of this run's domains; allowed: "
            "the log of a run with the same domains (dids_domains may be that run's dids folder)"
        )
    shares_D = np.array([mean[name] for name in names])
    return shares_D / shares_D.sum()


def _parse(key: str, text: str) -> str | Path | list[float] | dict[str, float]:
    """The mixture as a word, a path, numbers in order, or numbers by name. Raises DidsError for any other text."""
    items, path = split_list(text), os.path.expanduser(text)
    if text.strip() in WORDS:
        return text.strip()
    if items and os.path.exists(path):  # Path.exists raises for a text too long for a path
        return Path(path)
    if any("=" in item for item in items):
        pairs = [_pair(key, item) for item in items]
        if twice := [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]:
            raise refuse(key, twice[0], "each name once")
        return dict(pairs)
    try:
        return [float(item) for item in items]
    except ValueError:
        raise refuse(key, text, ALLOWED) from None


def _pair(key: str, item: str) -> tuple[str, float]:
    name, _, word = item.rpartition("=")
    try:
        number = float(word)
    except ValueError:
        number = math.nan
    if not (name.strip() and 0 <= number < math.inf):
        raise refuse(key, item, "NAME=NUMBER, with a number that is 0 or above")
    return name.strip(), number


def _mean_of_log(path: Path) -> Shares:
    return MixtureLog(find_log(path)).record().mean()
