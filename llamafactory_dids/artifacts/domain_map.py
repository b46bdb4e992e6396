"""The domain map: which domain each training sample belongs to, and what each domain is.

A map is a folder of two files. `domains.parquet` has a row for each training sample (`sample_key`, `source`, `domain`);
a clustered map also has `x` and `y`, the position of a sample in the report's picture. `domains.json` holds the inputs
that made the map, the name, size, sources and typical texts of each domain, and the share of the variance on the axes x
and y.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..errors import DidsError
from .files import digest, read_json, write_json
from .samples import UNKNOWN, Texts, codes, lines, pairs, places, read_table, texts, write_table

SCHEMA = 1
PARQUET = "domains.parquet"  # and the key of its digest
COLUMNS = ("sample_key", "source", "domain")
BY_SOURCE = {"domains": "source"}  # inputs of a map with a domain for each data set


class View(NamedTuple):
    """Position of each sample on two axes (N, 2), NaN if it is not drawn; each axis's share of the variance."""

    points_N2: NDArray[np.float32]
    explained_2: tuple[float, float]


@dataclass(frozen=True)
class DomainMap:
    """Names of D domains; content key, source and domain index of each of N samples.

    Keys and sources may be given as any sequence of strings; they are kept as arrow arrays.
    """

    names: tuple[str, ...]
    keys_N: Texts
    sources_N: Texts
    domains_N: NDArray[np.int64]
    typical_texts: dict[str, list[str]] = field(default_factory=dict)
    inputs: dict[str, Any] = field(default_factory=dict)
    view: View | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "keys_N", texts(self.keys_N))
        object.__setattr__(self, "sources_N", texts(self.sources_N))

    def sizes(self) -> NDArray[np.int64]:
        """Number of samples in each domain, shape D."""
        return np.bincount(self.domains_N, minlength=len(self.names)).astype(np.int64)

    def digest(self) -> str:
        """16 hex digits that change with any sample or its domain, with any domain's name, and with their order."""
        parts: list[bytes | memoryview] = ["\n".join([str(len(self.names)), *self.names]).encode()]
        for column_N in (self.sources_N, self.keys_N):
            parts += [str(len(column_N)).encode(), lines(column_N)]
        return digest([*parts, self.domains_N.astype(np.int64).tobytes()])

    def lookup(self) -> dict[tuple[str, str], int]:
        """The domain index for each (source, content key): for callers that look up one sample at a time."""
        tags = zip(self.sources_N.to_pylist(), self.keys_N.to_pylist(), strict=True)
        return dict(zip(tags, self.domains_N.tolist(), strict=True))

    def domains_of(self, sources_M: Texts, keys_M: Texts) -> NDArray[np.int64]:
        """Domain index of each given sample, UNKNOWN if the map does not have the sample; shape M."""
        places_M = places(pairs(sources_M, keys_M), pairs(self.sources_N, self.keys_N))
        return np.append(self.domains_N, UNKNOWN)[places_M]

    def of_sources(self, sources: Iterable[str]) -> "DomainMap":
        """The map of these sources alone. Domains without a sample of them are dropped."""
        rows_M = np.flatnonzero(codes(self.sources_N, list(sources)) != UNKNOWN)
        return self._subset(rows_M, np.unique(self.domains_N[rows_M]).tolist())

    def of_domains(self, domains: Sequence[int]) -> "DomainMap":
        """The map of these domains alone, in this order."""
        return self._subset(np.flatnonzero(np.isin(self.domains_N, domains)), domains)

    def _subset(self, rows_M: NDArray[np.int64], domains: Sequence[int]) -> "DomainMap":
        """The map of these rows and domains. The domains are numbered anew, in the order given."""
        new_D = np.full(len(self.names), UNKNOWN)
        new_D[list(domains)] = np.arange(len(domains))
        taken = pa.array(rows_M)
        return replace(
            self,
            names=tuple(self.names[i] for i in domains),
            keys_N=self.keys_N.take(taken),
            sources_N=self.sources_N.take(taken),
            domains_N=new_D[self.domains_N[rows_M]],
            view=self.view and self.view._replace(points_N2=self.view.points_N2[rows_M]),
        )

    def describe(self) -> list[dict[str, Any]]:
        """A dictionary for each domain: name, size, sample count by source (first seen first), typical texts."""
        encoded = self.sources_N.dictionary_encode()
        sources, codes_N = encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)
        found, first, counts = np.unique(self.domains_N * len(sources) + codes_N, return_index=True, return_counts=True)
        shares: list[dict[str, int]] = [{} for _ in self.names]
        for i in np.argsort(first).tolist():
            domain, source = divmod(int(found[i]), len(sources))
            shares[domain][sources[source]] = int(counts[i])
        return [
            {"name": name, "size": size, "sources": shares[i], "typical_texts": self.typical_texts.get(name, [])}
            for i, (name, size) in enumerate(zip(self.names, self.sizes().tolist(), strict=True))
        ]


def texts_are_random(inputs: Mapping[str, Any]) -> bool:
    """Whether the typical texts are of random samples, as in a map by source, not of those nearest a centre."""
    return BY_SOURCE.items() <= inputs.items()


def save_map(domain_map: DomainMap, folder: Path) -> None:
    """Write the map. `domains.json` is written last, and marks the map as complete."""
    names = pa.DictionaryArray.from_arrays(
        pa.array(domain_map.domains_N.astype(np.int32)), pa.array(list(domain_map.names), pa.string())
    )
    columns = {"sample_key": domain_map.keys_N, "source": domain_map.sources_N, "domain": names}
    content = {"schema": SCHEMA, "inputs": domain_map.inputs, "domains": domain_map.describe()}
    if domain_map.view is not None:
        x_N, y_N = domain_map.view.points_N2.T
        columns |= {"x": pa.array(x_N, from_pandas=True), "y": pa.array(y_N, from_pandas=True)}  # NaN as null
        content["explained"] = domain_map.view.explained_2
    content[PARQUET] = write_table(folder / PARQUET, pa.table(columns))
    write_json(folder / "domains.json", content)


def load_map(path: Path) -> DomainMap:
    """Read a map from its folder, or from the path of its `domains.parquet` or `domains.json`.

    Raises DidsError, with the file's name, if a file is missing, broken or not a domain map.
    """
    folder, content = _read_content(path)
    what = "a domain map of domains.parquet and domains.json"
    table = read_table(folder / PARQUET, content.get(PARQUET), COLUMNS, what)
    names = tuple(domain["name"] for domain in content["domains"])
    labels_N = texts(table["domain"])
    domains_N = codes(labels_N, names)
    if len(unknown := np.flatnonzero(domains_N == UNKNOWN)):
        raise DidsError(
            f"{folder}: domains.parquet names {labels_N[int(unknown[0])].as_py()!r}, which domains.json does not"
        )
    return DomainMap(
        names=names,
        keys_N=table["sample_key"],
        sources_N=table["source"],
        domains_N=domains_N,
        typical_texts={domain["name"]: domain.get("typical_texts", []) for domain in content["domains"]},
        inputs=content.get("inputs", {}),
        view=_view(table, content.get("explained")),
    )


def _view(table: pa.Table, explained: Any) -> View | None:
    if not explained or not {"x", "y"} <= set(table.column_names):
        return None
    points_N2 = np.column_stack([table[name].to_numpy() for name in ("x", "y")])
    return View(points_N2.astype(np.float32), tuple(explained))


def is_map(path: Path) -> bool:
    """Whether a file of a map exists at `path`, whole or not."""
    return any((_folder(path) / name).is_file() for name in ("domains.json", PARQUET))


def _read_content(path: Path) -> tuple[Path, dict[str, Any]]:
    """The map's folder, and the content of its `domains.json`."""
    folder = _folder(path)
    content = read_json(folder / "domains.json")
    if content.get("schema") != SCHEMA or not _names_all(content.get("domains")):
        raise DidsError(f"{folder / 'domains.json'}: not a domain map of schema {SCHEMA}")
    return folder, content


def _folder(path: Path) -> Path:
    return path.parent if path.suffix in (".parquet", ".json") else path


def _names_all(domains: Any) -> bool:
    """Whether each domain has a name, of its own."""
    domains = domains if isinstance(domains, list) else [None]
    names = [domain["name"] for domain in domains if isinstance(domain, dict) and isinstance(domain.get("name"), str)]
    return len(set(names)) == len(domains)
