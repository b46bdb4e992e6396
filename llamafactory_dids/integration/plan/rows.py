"""The training set with a domain for each row. A row finds its domain by its tags, or is packed within one domain."""

import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ...artifacts.domain_map import DomainMap
from ...artifacts.samples import UNKNOWN, Texts, codes
from ...training.collator import DOMAIN_COLUMN
from ...training.guards import is_labelled, not_labelled
from ..data.source import DataSource
from ..data.tags import lacking
from ..domains.making import find_domains
from ..domains.samples import TokenisedSamples, proxy_samples

logger = logging.getLogger(__name__)


class TrainingRows(NamedTuple):
    """The host's dataset module, with a domain column in its training set; the map; the domain of each row; and a
    function for the samples behind the rows, as the features' model reads them.
    """

    module: dict[str, Any]
    domain_map: DomainMap
    domains_N: NDArray[np.int64]
    samples: Callable[[], TokenisedSamples]


def rows_with_domains(source: DataSource) -> TrainingRows:
    """The training rows. Raises DidsError if a data set has no row, or the map lacks a row."""
    if source.packs:
        samples = functools.cache(functools.partial(proxy_samples, source))
        domain_map = find_domains(source, samples())
        module, tags = source.training_set(_domains_of(source, domain_map))
        domains_N = tags[DOMAIN_COLUMN].to_numpy().astype(np.int64)
    else:
        module, tags = source.training_set()
        rows = TokenisedSamples(module["train_dataset"], tags, source.tokenizer)
        _check_labels(rows, source.data_args.dataset)
        samples = functools.cache(functools.partial(proxy_samples, source, rows))
        clusters = source.settings.config.dids_domains == "cluster"
        domain_map = find_domains(source, samples() if clusters else rows)
        domains_N = _known(domain_map.domains_of(rows.sources, rows.keys), rows)
    source.settle_saved(domain_map)
    domain_map, domains_N = _drop_empty(domain_map, domains_N)
    for name in tags.column_names:
        if name != DOMAIN_COLUMN:
            module["train_dataset"] = module["train_dataset"].add_column(name, tags[name])
    module["train_dataset"] = module["train_dataset"].add_column(DOMAIN_COLUMN, domains_N)
    return TrainingRows(module, domain_map, domains_N, samples)


def _domains_of(source: DataSource, domain_map: DomainMap) -> Callable[[Texts, Texts], NDArray[np.int64]]:
    if source.settings.config.dids_domains == "source":
        return lambda sources_N, _: codes(sources_N, source.data_args.dataset)
    return domain_map.domains_of


def _known(domains_N: NDArray[np.int64], rows: TokenisedSamples) -> NDArray[np.int64]:
    unknown = np.flatnonzero(domains_N == UNKNOWN)
    if len(unknown):
        first = int(unknown[0])
        what = f"{len(unknown)} of {len(domains_N)} training samples"
        raise lacking(what, rows.sources[first].as_py(), rows.keys[first].as_py())
    return domains_N


def _check_labels(rows: TokenisedSamples, names: Sequence[str]) -> None:
    """Raise DidsError for a data set of which nothing is learned; its first row mostly tells that something is.

    Rows without labels (pt) are learned whole.
    """
    columns = [name for name in rows.dataset.column_names if name.endswith("labels")]
    if not columns:
        return
    labels = rows.dataset.select_columns(columns)
    sources_N = codes(rows.sources, names)
    for index, name in enumerate(names):
        members = np.flatnonzero(sources_N == index)
        if len(members) and not any(is_labelled(labels[int(row)]) for row in members):
            raise not_labelled("dataset", name)


def _drop_empty(domain_map: DomainMap, domains_N: NDArray[np.int64]) -> tuple[DomainMap, NDArray[np.int64]]:
    """The map and the domains without domains that have no training row. Nothing could be drawn from them."""
    present = np.unique(domains_N)
    if len(present) == len(domain_map.names):
        return domain_map, domains_N
    gone = [name for i, name in enumerate(domain_map.names) if i not in set(present.tolist())]
    logger.warning("%d domains have no training rows and are left out, the first: %s", len(gone), gone[0])
    return domain_map.of_domains(present.tolist()), np.searchsorted(present, domains_N)
