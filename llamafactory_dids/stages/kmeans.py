"""k-means over features that are read from their store a block at a time.

It is trained on a bounded sample of the rows; all rows are then assigned block by block. Memory therefore depends on
the number of clusters, not of samples: at most `MAX_POINTS` rows a cluster in fp32, or `MIN_SAMPLE` in all. That is 1.2
GB for 1,152 clusters of 1,024 dims.

Shapes: `N` samples, `M` of them, `B` samples of a block, `K` dims, `C` clusters.
"""

import math
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ..errors import DidsError

Features: TypeAlias = NDArray[np.float32]
Indices: TypeAlias = NDArray[np.int64]
Read: TypeAlias = Callable[[Indices], Features]  # rows at ascending indices, as an array's `__getitem__` returns them

MAX_POINTS = 256  # training rows for each cluster; more change the centroids little
MIN_SAMPLE = 1 << 13  # least number of training rows, if there are so many
_ROUNDS = 25
_ROUNDS_OF_SAMPLE = 5  # more rounds would gain less than the sampling loses
_STARTS = 40  # restarts times clusters: ten restarts for four clusters, where one bad start hurts most
_START_POINTS, _MAX_START = 32, 1 << 14  # rows for each cluster to choose a start from, and rows in all
_CANDIDATES = 40  # rows tried for each centroid
_BLOCK = 1 << 12  # rows read at a time: 16 MiB at 1,024 dims, for which glibc reuses memory


def kmeans_labels(read: Read, rows_M: Indices, num_clusters: int, *, min_size: int, seed: int) -> Indices:
    """k-means labels of these rows, shape M, numbered from the largest cluster to the smallest.

    An empty cluster is dropped. A cluster below `min_size` joins its nearest, the smallest cluster first.
    """
    if num_clusters == 1 or len(rows_M) <= min_size:
        return np.zeros(len(rows_M), dtype=np.int64)
    centroids_CK = _train(read, rows_M, min(num_clusters, len(rows_M)), seed)
    labels_M = np.empty(len(rows_M), dtype=np.int64)
    for block, features_BK in read_blocks(read, rows_M):
        labels_M[block] = nearest_centroids(centroids_CK, features_BK)
    sizes = np.bincount(labels_M)
    if sizes[sizes > 0].min() < min_size:  # rare, so the sums get a pass of their own
        blocks = read_blocks(read, rows_M)
        sums_CK = sum(label_sums(features_BK, labels_M[block], len(centroids_CK)) for block, features_BK in blocks)
        labels_M = _merge_small(labels_M, sums_CK, min_size)
        sizes = np.bincount(labels_M)
    order = sorted(np.flatnonzero(sizes), key=lambda label: (-sizes[label], label))
    rank_of = np.zeros(len(sizes), dtype=np.int64)
    rank_of[order] = np.arange(len(order))
    return rank_of[labels_M]


def _train(read: Read, rows_M: Indices, num_clusters: int, seed: int) -> Features:
    """The centroids (C, K) of the best of several k-means runs."""
    rounds, points = _ROUNDS, max(MAX_POINTS * num_clusters, MIN_SAMPLE)
    rng = np.random.default_rng(seed)
    if len(rows_M) > points:
        rounds = _ROUNDS_OF_SAMPLE
        rows_M = rows_M[np.sort(rng.choice(len(rows_M), points, replace=False))]
    faiss = require_faiss()
    features_MK = np.ascontiguousarray(read(rows_M))
    trainer = faiss.Kmeans(
        features_MK.shape[1],
        num_clusters,
        niter=rounds,
        seed=seed % 2**31,  # a C int
        gpu=bool(getattr(faiss, "get_num_gpus", lambda: 0)()),
        min_points_per_centroid=1,
        max_points_per_centroid=len(features_MK),
    )
    best = (math.inf, features_MK[:num_clusters])
    for _ in range(max(1, _STARTS // num_clusters)):
        inertia = float(trainer.train(features_MK, init_centroids=_start(features_MK, num_clusters, rng)))
        if inertia < best[0]:
            best = (inertia, np.array(trainer.centroids, dtype=np.float32))
    return best[1]


def _start(features_MK: Features, num_clusters: int, rng: np.random.Generator) -> Features:
    """First centroids (C, K), by greedy k-means++ (Arthur & Vassilvitskii 2007, section 5).

    Each is the best of several rows, drawn by their squared distance from the earlier centroids. FAISS tries one row,
    and its k-means then ends at a higher inertia.
    """
    count = min(len(features_MK), _START_POINTS * num_clusters, max(_MAX_START, num_clusters))
    rows_RK = features_MK[rng.choice(len(features_MK), count, replace=False)]
    squares_R = np.einsum("rk,rk->r", rows_RK, rows_RK)

    def distances(some: Indices) -> Features:
        """Squared distances between `some` rows and all rows, shape (some, R)."""
        squares = squares_R[some, None] + squares_R - 2 * (rows_RK[some] @ rows_RK.T)
        return np.maximum(squares, 0, dtype=np.float32)

    chosen = [int(rng.integers(count))]
    nearest_R = distances(np.array(chosen))[0]
    for _ in range(num_clusters - 1):
        below_R = np.cumsum(nearest_R, dtype=np.float64)
        drawn_T = np.searchsorted(below_R, rng.random(_CANDIDATES) * below_R[-1], side="right")
        drawn_T = np.minimum(drawn_T, count - 1)  # if all rows are equal, no distance is above zero
        left_TR = np.minimum(nearest_R, distances(drawn_T))
        best = int(left_TR.sum(axis=1).argmin())
        chosen.append(int(drawn_T[best]))
        nearest_R = left_TR[best]
    return rows_RK[chosen]


def nearest_centroids(centroids_CK: Features, features_BK: Features) -> Indices:
    """The nearest centroid of each row, shape B. torch is up to four times as fast as FAISS here."""
    centroids, features = torch.from_numpy(centroids_CK), torch.from_numpy(features_BK)
    # a row's own length does not change which centroid is nearest
    scores_BC = torch.addmm(centroids.square().sum(dim=1), features, centroids.T, alpha=-2)
    labels_B: Indices = scores_BC.argmin(dim=1).numpy()
    return labels_B


def read_blocks(read: Read, rows_M: Indices) -> Iterator[tuple[slice, Features]]:
    """(slice of `rows_M`, features) of a bounded number of rows at a time."""
    for start in range(0, len(rows_M), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(rows_M)))
        yield block, read(rows_M[block])


def label_sums(features_BK: Features, labels_B: Indices, num_clusters: int) -> NDArray[np.float64]:
    """The sum of the rows of each cluster, shape (C, K)."""
    ones_CB = csr_matrix(
        (np.ones(len(labels_B)), (labels_B, np.arange(len(labels_B)))), shape=(num_clusters, len(labels_B))
    )
    sums_CK: NDArray[np.float64] = ones_CB @ features_BK
    return sums_CK


def _merge_small(labels_M: Indices, sums_CK: NDArray[np.float64], min_size: int) -> Indices:
    """The labels after each cluster below `min_size` has joined the cluster with the nearest mean."""
    sizes = np.bincount(labels_M, minlength=len(sums_CK))
    joined = np.arange(len(sums_CK))
    while np.count_nonzero(sizes) > 1:
        small = min(np.flatnonzero(sizes), key=lambda c: (sizes[c], c))
        if sizes[small] >= min_size:
            break
        others = np.flatnonzero((sizes > 0) & (np.arange(len(sizes)) != small))
        means = sums_CK[others] / sizes[others, None]
        into = others[np.linalg.norm(means - sums_CK[small] / sizes[small], axis=1).argmin()]
        joined[joined == small] = into
        sizes[into] += sizes[small]
        sums_CK[into] += sums_CK[small]
        sizes[small] = 0
    return joined[labels_M]


def require_faiss() -> Any:
    """The library. Raises DidsError where it is not installed."""
    try:
        import faiss
    except ImportError:
        raise DidsError("faiss is not installed; `pip install faiss-gpu` on Linux x86-64, else `faiss-cpu`") from None
    return faiss
