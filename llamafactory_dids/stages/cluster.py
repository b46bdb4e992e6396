"""Domains from gradients: k-means inside each source, or over all of them (section 4.1, method section 1.6).

The features stay where they are and are read a block at a time: k-means is trained on a bounded sample of them, and the
others are assigned in passing. So memory depends on the number of domains and not on that of the samples: at most
`MAX_POINTS` rows a domain in fp32, or `MIN_SAMPLE` in all: 1.2 GB for 1,152 domains of 1,024 dims.

Shapes: `N` samples, `M` of them, `K` dims, `C` clusters, `D` domains.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_matrix

from ..artifacts.gradient_store import GradientStore
from ..errors import DidsError, refuse

Features: TypeAlias = NDArray[np.float32]
Indices: TypeAlias = NDArray[np.int64]
Read: TypeAlias = Callable[[Indices], Features]  # rows by ascending index; an array's `__getitem__` is one

MAX_POINTS = 256  # rows a cluster that k-means is trained on; more change the centroids little
MIN_SAMPLE = 1 << 13  # rows that it is trained on, if there are so many, however few clusters they make
_ROUNDS = 25
_ROUNDS_OF_SAMPLE = 5  # what more rounds would mend is less than what a sample leaves open
_STARTS = 40  # for a single cluster, and so ten for four: among few clusters one bad start tells most
_START_POINTS, _MAX_START = 32, 1 << 14  # rows a cluster that a start is chosen from, and rows in all
_CANDIDATES = 40  # rows that are tried for each centroid
_BLOCK = 1 << 12  # rows read at a time: 16 MiB at 1,024 dims, which glibc takes from memory that it has already


def check_one_each(num_domains: int, num_sources: int) -> None:
    """Raise DidsError for fewer domains than sources: clusters are within a source, so each has at least one."""
    if num_domains < num_sources:
        raise refuse("dids_num_domains", num_domains, f"at least one for each of the {num_sources} datasets")


def domain_shares(sizes_S: Sequence[int], num_domains: int, how: str) -> list[int]:
    """How many domains each source gets: by the root of its size (`sqrt`) or the same (`equal`).

    At least one each, never more than a source has samples, `num_domains` in all.
    Raises DidsError where that cannot be.
    """
    check_one_each(num_domains, len(sizes_S))
    if num_domains > sum(sizes_S):
        raise refuse("dids_num_domains", num_domains, f"at most the number of training samples, {sum(sizes_S)}")
    weights = np.sqrt(np.asarray(sizes_S, float)) if how == "sqrt" else np.ones(len(sizes_S))
    shares = np.ones(len(sizes_S), dtype=int)
    for _ in range(num_domains - len(sizes_S)):
        # the source that is furthest below its due gets the next one
        due = np.where(shares < np.asarray(sizes_S), weights / (shares + 0.5), -1.0)
        shares[int(due.argmax())] += 1
    return [int(share) for share in shares]


class StoredFeatures:
    """The rows of a store in fp32, of unit length or as long as they were; `written_N` says which have any."""

    def __init__(self, store: GradientStore, normalize: bool) -> None:
        self.store = store
        parts = [(norm_R, written_R) for _, _, norm_R, written_R in store.read_parts()]
        self.written_N = np.concatenate([written_R for _, written_R in parts])
        self._norm_N = None if normalize else np.concatenate([norm_R for norm_R, _ in parts])

    def __call__(self, indices_M: Indices) -> Features:
        """Rows (M, K) by ascending index."""
        features_MK = np.empty((len(indices_M), self.store.dim), dtype=np.float32)
        parts_M = indices_M // self.store.part_rows
        bounds = [*np.flatnonzero(np.diff(parts_M, prepend=-1)), len(indices_M)]
        for start, stop in zip(bounds, bounds[1:], strict=False):
            part = int(parts_M[start])
            rows = self.store.read_part(part)[0][indices_M[start:stop] - part * self.store.part_rows]
            # torch widens float16 many numbers at a time, numpy one by one
            torch.from_numpy(features_MK[start:stop]).copy_(torch.from_numpy(np.asarray(rows)))
        if self._norm_N is not None:
            features_MK *= self._norm_N[indices_M][:, None]
        return features_MK


def cluster_domains(
    read: Read,
    written_N: NDArray[np.bool_],
    sources_N: Indices,
    shares: Sequence[int],
    *,
    min_size: int,
    seed: int,
) -> Indices:
    """A domain for each sample, shape N: source after source, each source's domains from large to small.

    A sample without a gradient joins its source's largest domain.
    """
    labels_N = np.full(len(sources_N), -1, dtype=np.int64)
    first = 0
    for source, share in enumerate(shares):
        members = np.flatnonzero(sources_N == source)
        if len(members) == 0:
            raise DidsError(f"dataset number {source} has no training samples")
        usable = members[written_N[members]]
        labels_N[members] = first  # the largest comes first
        labels_N[usable] = first + kmeans_labels(read, usable, share, min_size=min_size, seed=seed + source)
        first = int(labels_N[members].max()) + 1
    return labels_N


def kmeans_labels(read: Read, rows_M: Indices, num_clusters: int, *, min_size: int, seed: int) -> Indices:
    """k-means labels of these rows, shape M, numbered from the largest cluster to the smallest, none below `min_size`.

    An empty cluster is dropped; one that is too small joins the nearest, the smallest first.
    """
    if num_clusters == 1 or len(rows_M) <= min_size:
        return np.zeros(len(rows_M), dtype=np.int64)
    centroids_CK = _train(read, rows_M, min(num_clusters, len(rows_M)), seed)
    labels_M = np.empty(len(rows_M), dtype=np.int64)
    for block, features_BK in _blocks(read, rows_M):
        labels_M[block] = _nearest(centroids_CK, features_BK)
    sizes = np.bincount(labels_M)
    if sizes[sizes > 0].min() < min_size:  # seldom, so that the sums are worth a pass of their own
        blocks = _blocks(read, rows_M)
        sums_CK = sum(_sums(features_BK, labels_M[block], len(centroids_CK)) for block, features_BK in blocks)
        labels_M = _merge_small(labels_M, sums_CK, min_size)
        sizes = np.bincount(labels_M)
    order = sorted(np.flatnonzero(sizes), key=lambda label: (-sizes[label], label))
    rank_of = np.zeros(len(sizes), dtype=np.int64)
    rank_of[order] = np.arange(len(order))
    return rank_of[labels_M]


def _train(read: Read, rows_M: Indices, num_clusters: int, seed: int) -> Features:
    """The centroids (C, K) of the best k-means of several starts."""
    rounds, points = _ROUNDS, max(MAX_POINTS * num_clusters, MIN_SAMPLE)
    rng = np.random.default_rng(seed)
    if len(rows_M) > points:
        rounds = _ROUNDS_OF_SAMPLE
        rows_M = rows_M[np.sort(rng.choice(len(rows_M), points, replace=False))]
    faiss = _faiss()
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

    Each is the best of several rows that were drawn by their squared distance from those before. FAISS tries one, and
    from there k-means ends at a higher inertia.
    """
    count = min(len(features_MK), _START_POINTS * num_clusters, max(_MAX_START, num_clusters))
    rows_RK = features_MK[rng.choice(len(features_MK), count, replace=False)]
    squares_R = np.einsum("rk,rk->r", rows_RK, rows_RK)

    def distances(some: Indices) -> Features:
        """Squared, of all rows from some of them, shape (some, R)."""
        squares = squares_R[some, None] + squares_R - 2 * (rows_RK[some] @ rows_RK.T)
        return np.maximum(squares, 0, dtype=np.float32)

    chosen = [int(rng.integers(count))]
    nearest_R = distances(np.array(chosen))[0]
    for _ in range(num_clusters - 1):
        below_R = np.cumsum(nearest_R, dtype=np.float64)
        drawn_T = np.searchsorted(below_R, rng.random(_CANDIDATES) * below_R[-1], side="right")
        drawn_T = np.minimum(drawn_T, count - 1)  # all rows are alike: none is far from those before
        left_TR = np.minimum(nearest_R, distances(drawn_T))
        best = int(left_TR.sum(axis=1).argmin())
        chosen.append(int(drawn_T[best]))
        nearest_R = left_TR[best]
    return rows_RK[chosen]


def _nearest(centroids_CK: Features, features_BK: Features) -> Indices:
    """Of each row the nearest centroid, shape B: by torch, up to four times as fast as FAISS here."""
    centroids, features = torch.from_numpy(centroids_CK), torch.from_numpy(features_BK)
    # a row's own length is the same to all of them
    scores_BC = torch.addmm(centroids.square().sum(dim=1), features, centroids.T, alpha=-2)
    labels_B: Indices = scores_BC.argmin(dim=1).numpy()
    return labels_B


def _blocks(read: Read, rows_M: Indices) -> Iterator[tuple[slice, Features]]:
    """The features of the rows, a bounded number of them at a time, and their places among `rows_M`."""
    for start in range(0, len(rows_M), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(rows_M)))
        yield block, read(rows_M[block])


def _sums(features_BK: Features, labels_B: Indices, num_clusters: int) -> NDArray[np.float64]:
    """The sum of the rows of each cluster, shape (C, K)."""
    ones_CB = csr_matrix(
        (np.ones(len(labels_B)), (labels_B, np.arange(len(labels_B)))), shape=(num_clusters, len(labels_B))
    )
    sums_CK: NDArray[np.float64] = ones_CB @ features_BK
    return sums_CK


def _merge_small(labels_M: Indices, sums_CK: NDArray[np.float64], min_size: int) -> Indices:
    """The labels after each cluster that is too small has joined the one whose mean is nearest."""
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


def domain_means(
    read: Read, written_N: NDArray[np.bool_], domains_N: Indices, num_domains: int
) -> tuple[Features, NDArray[np.int64]]:
    """The mean (D, K) of each domain's samples that have features, and how many those are (D)."""
    rows_M = np.flatnonzero(written_N)
    counts_D = np.bincount(domains_N[rows_M], minlength=num_domains)
    sums_DK: Any = 0.0
    for block, features_BK in _blocks(read, rows_M):
        sums_DK = sums_DK + _sums(features_BK, domains_N[rows_M[block]], num_domains)
    if not len(rows_M):
        return np.zeros((num_domains, 1), dtype=np.float32), counts_D
    return (sums_DK / np.maximum(counts_D, 1)[:, None]).astype(np.float32), counts_D


def central_samples(read: Read, written_N: NDArray[np.bool_], domains_N: Indices, count: int) -> list[list[int]]:
    """For each domain the samples nearest its mean, nearest first; one without any features has its first ones."""
    num_domains = int(domains_N.max()) + 1
    means_DK, counts_D = domain_means(read, written_N, domains_N, num_domains)
    distance_N = np.where(written_N, 0.0, np.inf)
    rows_M = np.flatnonzero(written_N)
    for block, features_BK in _blocks(read, rows_M):
        rows_B = rows_M[block]
        distance_N[rows_B] = np.linalg.norm(features_BK - means_DK[domains_N[rows_B]], axis=1)
    central: list[list[int]] = []
    for domain in range(num_domains):
        members = np.flatnonzero(domains_N == domain)
        nearest = members[np.argsort(distance_N[members], kind="stable")]
        central.append(nearest[: min(count, counts_D[domain] or count)].tolist())
    return central


def nearest_domains(
    read: Read,
    written_N: NDArray[np.bool_],
    domains_N: Indices,
    num_domains: int,
    others_MK: Features,
) -> NDArray[np.int64]:
    """The domain whose mean is nearest to each of M other samples, shape M.

    A domain without any sample that has features is nearest to none.
    """
    means_DK, counts_D = domain_means(read, written_N, domains_N, num_domains)
    present = np.flatnonzero(counts_D)
    return present[_nearest(means_DK[present], others_MK)]


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise DidsError("faiss is not installed; `pip install faiss-gpu` on Linux x86-64, else `faiss-cpu`") from None
    return faiss
