"""The domain map: which domain each training sample belongs to, and what each domain is.

A folder of `domains.parquet` (`sample_key`, `source`, `domain`; one row a training sample) and
`domains.json` (the inputs that made it; name, size, sources and typical texts of each domain).
"""

from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from ..errors import DidsError
from .files import digest, read_json, write_atomically, write_json

SCHEMA = 1
COLUMNS = ("sample_key", "source", "domain")
BY_SOURCE = {"domains": "source"}  # the inputs of a map whose domains are the data sets


@dataclass(frozen=True)
class DomainMap:
    """`names` of the D domains; for each of N samples its content key, its source and its domain's index."""

    names: tuple[str, ...]
    keys_N: list[str]
    sources_N: list[str]
    domains_N: NDArray[np.int64]
    typical_texts: dict[str, list[str]] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)

    def sizes(self) -> NDArray[np.int64]:
        """Samples of each domain, shape D."""
        return np.bincount(self.domains_N, minlength=len(self.names)).astype(np.int64)

    def digest(self) -> str:
        """16 hex digits that change with any sample's place, any domain's name, or their order."""
        texts = ("\n".join([str(len(part)), *part]) for part in (self.names, self.sources_N, self.keys_N))
        return digest([*(text.encode() for text in texts), self.domains_N.astype(np.int64).tobytes()])

    def lookup(self) -> dict[tuple[str, str], int]:
        """(source, content key) to the domain's index."""
        pairs = zip(self.sources_N, self.keys_N, strict=True)
        return dict(zip(pairs, self.domains_N.tolist(), strict=True))

    def only(self, pairs: Container[tuple[str, str]]) -> "DomainMap":
        """The rows of these (source, content key); a domain may be left without any."""
        tags = zip(self.sources_N, self.keys_N, strict=True)
        return self._subset([i for i, pair in enumerate(tags) if pair in pairs], range(len(self.names)))

    def of_sources(self, sources: Container[str]) -> "DomainMap":
        """The rows of these sources, and the domains that they leave."""
        rows = [i for i, source in enumerate(self.sources_N) if source in sources]
        return self._subset(rows, np.unique(self.domains_N[rows]).tolist())

    def of_domains(self, domains: Sequence[int]) -> "DomainMap":
        """These domains, in this order, and their rows."""
        return self._subset(np.flatnonzero(np.isin(self.domains_N, domains)).tolist(), domains)

    def _subset(self, rows: Sequence[int], domains: Sequence[int]) -> "DomainMap":
        """Some rows, and the domains that they may be of: these are numbered anew, in the order given."""
        new_index = {old: new for new, old in enumerate(domains)}
        return replace(
            self,
            names=tuple(self.names[i] for i in domains),
            keys_N=[self.keys_N[i] for i in rows],
            sources_N=[self.sources_N[i] for i in rows],
            domains_N=np.array([new_index[old] for old in self.domains_N[rows].tolist()], dtype=np.int64),
        )

    def describe(self) -> list[dict[str, Any]]:
        """A dictionary a domain: name, size, samples of each source, typical texts."""
        sources: list[dict[str, int]] = [{} for _ in self.names]
        for source, domain in zip(self.sources_N, self.domains_N.tolist(), strict=True):
            sources[domain][source] = sources[domain].get(source, 0) + 1
        return [
            {"name": name, "size": size, "sources": sources[i], "typical_texts": self.typical_texts.get(name, [])}
            for i, (name, size) in enumerate(zip(self.names, self.sizes().tolist(), strict=True))
        ]


def texts_are_random(inputs: Mapping[str, Any]) -> bool:
    """Whether the texts of a map with these inputs are of random samples, not of those nearest a domain's middle."""
    return BY_SOURCE.items() <= inputs.items()


def save_map(domain_map: DomainMap, folder: Path) -> None:
    """Write the map; `domains.json` comes last and says that it is whole."""
    names = pa.DictionaryArray.from_arrays(
        pa.array(domain_map.domains_N.astype(np.int32)), pa.array(list(domain_map.names), pa.string())
    )
    table = pa.table({"sample_key": domain_map.keys_N, "source": domain_map.sources_N, "domain": names})
    write_atomically(folder / "domains.parquet", lambda stream: pq.write_table(table, stream))
    content = {"schema": SCHEMA, "inputs": domain_map.inputs, "domains": domain_map.describe()}
    write_json(folder / "domains.json", content)


def load_map(path: Path) -> DomainMap:
    """Read a map from its folder, or from the path of its `domains.parquet` or `domains.json`.

    Raises DidsError, with the file's name, where it is missing, broken or not a domain map.
    """
    folder = path.parent if path.suffix in (".parquet", ".json") else path
    content = read_json(folder / "domains.json")
    table = _read_table(folder / "domains.parquet")
    if not isinstance(content, dict) or content.get("schema") != SCHEMA or not _names_all(content.get("domains")):
        raise DidsError(f"{folder / 'domains.json'}: not a domain map of schema {SCHEMA}")
    names = tuple(domain["name"] for domain in content["domains"])
    index = {name: i for i, name in enumerate(names)}
    labels = table["domain"].to_pylist()
    if unknown := set(labels) - index.keys():
        raise DidsError(f"{folder}: domains.parquet names {sorted(unknown)[0]!r}, which domains.json does not")
    return DomainMap(
        names=names,
        keys_N=table["sample_key"].to_pylist(),
        sources_N=table["source"].to_pylist(),
        domains_N=np.array([index[label] for label in labels], dtype=np.int64),
        typical_texts={domain["name"]: domain.get("typical_texts", []) for domain in content["domains"]},
        inputs=content.get("inputs", {}),
    )


def _names_all(domains: Any) -> bool:
    return isinstance(domains, list) and all(isinstance(domain, dict) and "name" in domain for domain in domains)


def _read_table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise DidsError(f"{path}: no such file; allowed: a folder with domains.parquet and domains.json") from None
    except (OSError, pa.ArrowException) as error:
        raise DidsError(f"{path}: not a whole parquet file ({error})") from None
    if missing := [name for name in COLUMNS if name not in table.column_names]:
        raise DidsError(f"{path}: no column {missing[0]!r}; allowed: a domain map with {', '.join(COLUMNS)}")
    return table
