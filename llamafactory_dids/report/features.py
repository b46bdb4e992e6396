"""Where a run's samples lie: their stored features (projected gradients, or embeddings) on two principal axes."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from ..artifacts.domain_map import DomainMap, load_map
from ..artifacts.files import fingerprint, read_json
from ..artifacts.gradient_store import GradientStore, open_store
from ..artifacts.samples import samples_digest
from ..errors import DidsError
from .run import Floats, Run

MAX_POINTS = 4000  # drawn; more would only cover each other
SEED = 0


class Projected(NamedTuple):
    """`points_N2` on the first two principal axes, their share of the variance, and each point's source and domain."""

    points_N2: Floats
    explained_2: tuple[float, float]
    sources_N: list[str]
    domains_N: NDArray[np.int64]
    num_samples: int


def project_features(run: Run) -> Projected | None:
    """The samples of a run (at most 4,000, by a seeded choice); None where their features are not at hand."""
    if not (run.folder / "domains.parquet").exists() or "dids_cache_dir" not in run.config:
        return None
    domain_map = load_map(run.folder)
    store = find_store(domain_map, Path(str(run.config["dids_cache_dir"])).expanduser())
    if store is None:
        return None
    chosen_N = np.arange(store.num_rows)
    if store.num_rows > MAX_POINTS:
        chosen_N = np.sort(np.random.default_rng(SEED).choice(store.num_rows, MAX_POINTS, replace=False))
    rows_NK, kept_N = _read(store, chosen_N)
    if len(kept_N) < 3:
        return None
    points_N2, explained_2 = principal_axes(rows_NK)
    sources = domain_map.sources_N.take(pa.array(kept_N)).to_pylist()
    return Projected(points_N2, explained_2, sources, domain_map.domains_N[kept_N], store.num_rows)


def find_store(domain_map: DomainMap, cache: Path) -> GradientStore | None:
    """The whole store in the cache that holds a row for each row of the map; None where there is none."""
    made_from = [(k, v) for k, v in domain_map.inputs.items() if isinstance(v, dict) and "samples" in v]
    if not made_from:
        return None
    kind, inputs = made_from[0]
    folder = cache / kind / fingerprint(inputs)
    # a map that lost samples since (an empty domain, a part of the data) would point at others' rows
    if inputs["samples"] != samples_digest(domain_map.sources_N, domain_map.keys_N):
        return None
    try:
        manifest = read_json(folder / "manifest.json")
        store = open_store(folder, inputs, manifest["num_rows"], manifest["dim"], manifest["part_rows"])
    except (DidsError, KeyError, TypeError):
        return None
    return None if store.missing_parts() else store


def _read(store: GradientStore, chosen_N: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    """The chosen rows that have features, and which they are."""
    rows, kept = [], []
    for span, unit_RK, _, written_R in store.read_parts():
        mine = chosen_N[(chosen_N >= span.start) & (chosen_N < span.stop)]
        mine = mine[written_R[mine - span.start]]
        rows.append(np.asarray(unit_RK[mine - span.start], dtype=np.float64))
        kept.append(mine)
    return np.concatenate(rows), np.concatenate(kept)


def principal_axes(rows_NK: Floats) -> tuple[Floats, tuple[float, float]]:
    """The rows on the two directions of their largest variance, and the share of it that each has."""
    centred_NK = rows_NK - rows_NK.mean(axis=0)
    variances_K, axes_KK = np.linalg.eigh(centred_NK.T @ centred_NK)  # from the smallest
    total = float(variances_K.sum()) or 1.0
    first, second = (max(0.0, float(variance)) / total for variance in variances_K[:-3:-1])
    return centred_NK @ axes_KK[:, :-3:-1], (first, second)
