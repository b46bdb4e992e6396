"""Carries each sample's domain from the data set into the batch."""

from typing import Any

from ..stages.batching import Collate

DOMAIN_COLUMN = "dids_domain"
KEY_COLUMN = "dids_key"
SOURCE_COLUMN = "dids_source"
COLUMNS = (DOMAIN_COLUMN, KEY_COLUMN, SOURCE_COLUMN)


def untagged(collate: Collate) -> Collate:
    """The collator, called on samples without this package's columns."""
    return lambda samples: collate([{k: v for k, v in sample.items() if k not in COLUMNS} for sample in samples])


class DomainCollator:
    """Collates by `inner`, and adds the samples' domains to the batch as a list of ints, if they have any."""

    def __init__(self, inner: Collate) -> None:
        self.inner = inner

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:
        domains = [sample[DOMAIN_COLUMN] for sample in samples if DOMAIN_COLUMN in sample]
        batch: Any = untagged(self.inner)(samples)
        if domains:
            batch[DOMAIN_COLUMN] = domains
        return batch
