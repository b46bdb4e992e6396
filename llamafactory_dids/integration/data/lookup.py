"""From a sample's source and content key to its domain, while the host packs rows."""

from typing import Any

import numpy as np

from ...artifacts.domain_map import DomainMap
from ...training.collator import KEY_COLUMN, SOURCE_COLUMN

UNKNOWN = -1  # an example that the host drops when it tokenises, so that no map has it


class MapLookup:
    """A domain map, asked by source and content key."""

    def __init__(self, domain_map: DomainMap) -> None:
        self._index = domain_map.lookup()

    def domains(self, sources: list[str], keys: list[str]) -> list[int]:
        """The domain of each sample, UNKNOWN for one that the map does not have."""
        return [self._index.get(pair, UNKNOWN) for pair in zip(sources, keys, strict=True)]

    def ordered(self, dataset: Any) -> Any:
        """The dataset with the samples of a domain together, so that few packed rows are cut short."""
        domains = self.domains(list(dataset[SOURCE_COLUMN]), list(dataset[KEY_COLUMN]))
        return dataset.select(np.argsort(domains, kind="stable"))


class SourceLookup:
    """Each dataset is a domain."""

    def __init__(self, sources: tuple[str, ...]) -> None:
        self.sources = sources

    def domains(self, sources: list[str], keys: list[str]) -> list[int]:
        """The domain of each sample."""
        return [self.sources.index(source) for source in sources]

    def ordered(self, dataset: Any) -> Any:
        """The dataset as it is: it holds one domain."""
        return dataset
