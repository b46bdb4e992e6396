"""k-means of the gradient store: wall time and memory, against scikit-learn with 10 starts (the authors' release).

    python scripts/bench/kmeans.py --rows 60000               # both on the same rows, with the inertia of each
    python scripts/bench/kmeans.py --rows 940000 --clusters 72,1152 --without-sklearn

Rows are of unit length in float16 part files, as the gradient stage leaves them: some directions with noise around.
"""

import argparse
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llamafactory_dids.artifacts.gradient_store import GradientStore, open_store
from llamafactory_dids.stages.cluster import StoredFeatures, kmeans_labels
from scripts.bench import timing

DIM, DIRECTIONS = 1024, 200


def make_store(folder: Path, num_rows: int) -> GradientStore:
    """A finished store of `num_rows` rows around directions of unequal weight."""
    rng = np.random.default_rng(0)
    directions = rng.normal(size=(DIRECTIONS, DIM)).astype(np.float32)
    weights = rng.dirichlet(np.full(DIRECTIONS, 0.5))
    store = open_store(folder, {}, num_rows, DIM, part_rows=1 << 14)
    for part in range(store.num_parts):
        count = len(store.rows(part))
        rows = directions[rng.choice(DIRECTIONS, count, p=weights)] + rng.normal(0, 1.5, (count, DIM))
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        store.write_part(part, rows.astype(np.float16), np.ones(count, np.float32), np.ones(count, np.bool_))
    return store


def inertia(features: StoredFeatures, labels_N: np.ndarray) -> float:
    """The sum of squared distances of the rows to their cluster's mean."""
    sums, squares = np.zeros((int(labels_N.max()) + 1, DIM)), 0.0
    for start in range(0, len(labels_N), 1 << 14):
        rows = np.arange(start, min(start + (1 << 14), len(labels_N)))
        block = features(rows)
        squares += float((block.astype(np.float64) ** 2).sum())
        np.add.at(sums, labels_N[rows], block)
    counts = np.bincount(labels_N)[:, None]
    return squares - float((sums**2 / np.maximum(counts, 1)).sum())


def timed(run: Callable[[], np.ndarray], clock: str) -> tuple[float, np.ndarray]:
    now = time.perf_counter if clock == "wall" else time.process_time
    start = now()
    labels_N = run()
    return now() - start, labels_N


def measure(features: StoredFeatures, num_clusters: int, arguments: argparse.Namespace) -> dict[str, Any]:
    everyone = np.arange(arguments.rows)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    ours, labels_N = timed(lambda: kmeans_labels(features, everyone, num_clusters, min_size=1, seed=0), arguments.clock)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    row = {"seconds": ours, "inertia": inertia(features, labels_N), "working MiB": (peak - before) / 1024}
    if arguments.without_sklearn:
        return row
    from sklearn.cluster import KMeans

    whole_NK = features(everyone)
    theirs, labels_N = timed(
        lambda: KMeans(num_clusters, n_init=10, random_state=0).fit(whole_NK).labels_, arguments.clock
    )
    other = inertia(features, labels_N)
    return row | {
        "sklearn seconds": theirs,
        "sklearn inertia": other,
        "times as fast": theirs / ours,
        "inertia against sklearn": row["inertia"] / other,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Time k-means.")
    timing.add_arguments(parser, rounds=1)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--clusters", default="72")
    parser.add_argument("--without-sklearn", action="store_true")
    parser.add_argument("--folder", type=Path, help="where the store is made (a temporary folder)")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        features = StoredFeatures(make_store(Path(folder), arguments.rows), normalize=True)
        results = {
            f"{count} clusters": measure(features, int(count), arguments) for count in arguments.clusters.split(",")
        }
    timing.report(
        f"k-means of {arguments.rows:,} rows", {**results, "machine": timing.machine(arguments)}, arguments.json
    )


if __name__ == "__main__":
    main()
