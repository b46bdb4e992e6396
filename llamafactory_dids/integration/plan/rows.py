"""The training set with a domain for each row: each row finds its domain by its tags, or is packed within one."""

import logging
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...artifacts.domain_map import DomainMap
from ...training.collator import DOMAIN_COLUMN, KEY_COLUMN, SOURCE_COLUMN
from ..data import saved
from ..data.source import DataSource
from ..data.tags import UNKNOWN, MapLookup, SourceLookup, lacking
from ..domains.making import domains_to_train_with
from ..domains.samples import TokenisedSamples, has_other_tokens, proxy_samples

logger = logging.getLogger(__name__)


def rows_with_domains(source: DataSource) -> tuple[dict[str, Any], DomainMap, NDArray[np.int64]]:
    """The host's dataset module, its training set with a column for the domain; the map; the domain of each row."""
    if source.packs:
        domain_map = domains_to_train_with(source, proxy_samples(source))
        module = source.module(_lookup(source, domain_map))
        domains_N = np.asarray(module["train_dataset"][DOMAIN_COLUMN], dtype=np.int64)
    else:
        module = source.module()
        samples = (
            None if _other_tokens(source) else TokenisedSamples(module["train_dataset"], source.tokenizer)
        )
        domain_map = domains_to_train_with(source, samples or proxy_samples(source))
        domains_N = _domains_of(module["train_dataset"], domain_map)
    saved.settle_note(source.data_args, source.stage, source.tokenizer, domain_map)
    domain_map, domains_N = _drop_empty(domain_map, domains_N)
    train = module["train_dataset"]
    if DOMAIN_COLUMN in train.column_names:
        train = train.remove_columns(DOMAIN_COLUMN)
    module["train_dataset"] = train.add_column(DOMAIN_COLUMN, domains_N)
    return module, domain_map, domains_N


def _other_tokens(source: DataSource) -> bool:
    """Whether the domains are made from what a proxy with a tokenizer of its own reads."""
    return source.settings.config.dids_domains == "cluster" and has_other_tokens(source)


def _lookup(source: DataSource, domain_map: DomainMap) -> Any:
    config = source.settings.config
    if config.dids_domains == "source" and not config.dids_swap_domains:
        return SourceLookup(tuple(source.data_args.dataset))
    return MapLookup(domain_map)


def _domains_of(train: Any, domain_map: DomainMap) -> NDArray[np.int64]:
    index = domain_map.lookup()
    pairs = list(zip(train[SOURCE_COLUMN], train[KEY_COLUMN], strict=True))
    domains_N = np.array([index.get(pair, UNKNOWN) for pair in pairs], dtype=np.int64)
    unknown = np.flatnonzero(domains_N == UNKNOWN)
    if len(unknown):
        source, key = pairs[unknown[0]]
        raise lacking(f"{len(unknown)} of {len(pairs)} training samples", source, key)
    return domains_N


def _drop_empty(domain_map: DomainMap, domains_N: NDArray[np.int64]) -> tuple[DomainMap, NDArray[np.int64]]:
    """Domains without a training row leave: nothing can be drawn from them."""
    present = np.unique(domains_N)
    if len(present) == len(domain_map.names):
        return domain_map, domains_N
    gone = [name for i, name in enumerate(domain_map.names) if i not in set(present.tolist())]
    logger.warning("%d domains have no training rows and are left out, the first: %s", len(gone), gone[0])
    return domain_map.of_domains(present.tolist()), np.searchsorted(present, domains_N)
