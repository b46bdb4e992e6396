"""k-means of the gradient store: wall time and memory, against scikit-learn with 10 starts (the authors' release).

    python scripts/bench/kmeans.py --rows 60000               # both on the same rows, with the inertia of each
    python scripts/bench/kmeans.py --rows 240000 --starts 1   # scikit-learn with one start, where ten take too long
    python scripts/bench/kmeans.py --rows 940000 --clusters 72,1152 --starts 0     # without scikit-learn

Rows are of unit length in float16 part files, as the gradient stage leaves them: some directions with noise around.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import faiss  # noqa: F401  ahead of the clock
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llamafactory_dids.artifacts.gradient_store import GradientStore, open_store
from llamafactory_dids.stages.cluster import StoredFeatures
from llamafactory_dids.stages.kmeans import kmeans_labels
from llamafactory_dids.stages.means import domain_means
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
        noise = 1.5 * rng.standard_normal((count, DIM), dtype=np.float32)
        rows = directions[rng.choice(DIRECTIONS, count, p=weights)] + noise
        rows /= np.linalg.norm(rows, axis=1, keepdims=True)
        store.write_part(part, rows.astype(np.float16), np.ones(count, np.float32), np.ones(count, np.bool_))
    return store


def inertia(features: StoredFeatures, labels_N: np.ndarray) -> float:
    """The sum of squared distances of the rows to their cluster's mean."""
    everyone, num_clusters = np.ones(len(labels_N), dtype=np.bool_), int(labels_N.max()) + 1
    means_CK, counts_C = domain_means(features, everyone, labels_N, num_clusters)
    squares = sum(float(np.square(features(rows), dtype=np.float64).sum()) for rows in _blocks(len(labels_N)))
    return squares - float((counts_C[:, None] * means_CK.astype(np.float64) ** 2).sum())


def _blocks(num_rows: int) -> Iterator[np.ndarray]:
    for start in range(0, num_rows, 1 << 14):
        yield np.arange(start, min(start + (1 << 14), num_rows))


def timed(run: Callable[[], np.ndarray], clock: str) -> tuple[float, np.ndarray]:
    now = timing.clock(clock)
    start = now()
    labels_N = run()
    return now() - start, labels_N


def measure(features: StoredFeatures, num_clusters: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Ours, `--rounds` times before scikit-learn's single run, of minutes, and as often after it.

    Reading the rows counts for ours alone: scikit-learn is given them whole.
    """
    everyone = np.arange(arguments.rows)

    def ours() -> tuple[float, np.ndarray]:
        return timed(lambda: kmeans_labels(features, everyone, num_clusters, min_size=1, seed=0), arguments.clock)

    before = timing.reset_peak_memory()
    first, labels_N = ours()
    working = timing.peak_memory() - before
    row = {"inertia": inertia(features, labels_N), "working MiB": working / 2**20}
    seconds = [first] + [ours()[0] for _ in range(arguments.rounds - 1)]
    if arguments.starts:
        from sklearn.cluster import KMeans

        whole_NK = features(everyone)
        model = KMeans(num_clusters, n_init=arguments.starts, random_state=0, copy_x=False)
        theirs, labels_N = timed(lambda: model.fit(whole_NK).labels_, arguments.clock)
        del whole_NK
        seconds += [ours()[0] for _ in range(arguments.rounds)]
        row |= {
            "sklearn seconds": theirs,
            "sklearn starts": arguments.starts,
            "inertia against sklearn": row["inertia"] / inertia(features, labels_N),
            "times as fast": theirs / statistics.median(seconds),
            "times as fast, lowest": theirs / max(seconds),
            "times as fast, highest": theirs / min(seconds),
        }
    return {"seconds": statistics.median(seconds), "lowest": min(seconds), "highest": max(seconds)} | row


def main() -> None:
    parser = argparse.ArgumentParser(description="Time k-means.")
    timing.add_arguments(parser, rounds=3)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--clusters", default="72")
    parser.add_argument("--starts", type=int, default=10, help="of scikit-learn; 0: leave it out")
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
