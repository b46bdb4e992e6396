"""Domains from gradients: k-means inside each source, or over all of them (section 4.1, method section 1.6)."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..artifacts.gradient_store import GradientStore
from ..errors import DidsError, refuse

Features = NDArray[np.float32]


def domain_shares(sizes_S: Sequence[int], num_domains: int, how: str) -> list[int]:
    """How many domains each source gets: by the root of its size (`sqrt`) or the same (`equal`).

    At least one each, never more than a source has samples, `num_domains` in all.
    Raises DidsError where that cannot be.
    """
    if num_domains < len(sizes_S):
        raise refuse("dids_num_domains", num_domains, f"at least one for each of the {len(sizes_S)} datasets")
    if num_domains > sum(sizes_S):
        raise refuse("dids_num_domains", num_domains, f"at most the number of training samples, {sum(sizes_S)}")
    weights = np.sqrt(np.asarray(sizes_S, float)) if how == "sqrt" else np.ones(len(sizes_S))
    shares = np.ones(len(sizes_S), dtype=int)
    for _ in range(num_domains - len(sizes_S)):
        # the source that is furthest below its due gets the next one
        due = np.where(shares < np.asarray(sizes_S), weights / (shares + 0.5), -1.0)
        shares[int(due.argmax())] += 1
    return [int(share) for share in shares]


def read_features(store: GradientStore, normalize: bool) -> tuple[Features, NDArray[np.bool_]]:
    """All rows (N, K) in fp32, of unit length or as long as they were, and which are written (N)."""
    features_NK = np.zeros((store.num_rows, store.dim), dtype=np.float32)
    written_N = np.zeros(store.num_rows, dtype=np.bool_)
    for rows, unit_RK, norm_R, written_R in store.read_parts():
        block = unit_RK.astype(np.float32)
        features_NK[rows.start : rows.stop] = block if normalize else block * norm_R[:, None]
        written_N[rows.start : rows.stop] = written_R
    return features_NK, written_N


def cluster_domains(
    features_NK: Features,
    written_N: NDArray[np.bool_],
    sources_N: NDArray[np.int64],
    shares: Sequence[int],
    *,
    min_size: int,
    seed: int,
) -> NDArray[np.int64]:
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
        labels_N[usable] = first + kmeans_labels(features_NK[usable], share, min_size=min_size, seed=seed + source)
        first = int(labels_N[members].max()) + 1
    return labels_N


def kmeans_labels(features_NK: Features, num_clusters: int, *, min_size: int, seed: int) -> NDArray[np.int64]:
    """k-means labels, shape N, numbered from the largest cluster to the smallest, none below `min_size`.

    An empty cluster is dropped; one that is too small joins the nearest, the smallest first.
    """
    if num_clusters == 1 or len(features_NK) <= min_size:
        return np.zeros(len(features_NK), dtype=np.int64)
    centroids_CK = _train(features_NK, min(num_clusters, len(features_NK)), seed)
    labels_N = _nearest(features_NK, centroids_CK)
    labels_N = _merge_small(features_NK, labels_N, len(centroids_CK), min_size)
    sizes = np.bincount(labels_N)
    order = sorted(np.flatnonzero(sizes), key=lambda label: (-sizes[label], label))
    rank_of = np.zeros(len(sizes), dtype=np.int64)
    rank_of[order] = np.arange(len(order))
    return rank_of[labels_N]


def _train(features_NK: Features, num_clusters: int, seed: int) -> Features:
    faiss = _faiss()
    gpu = bool(getattr(faiss, "get_num_gpus", lambda: 0)())
    trainer = faiss.Kmeans(
        features_NK.shape[1],
        num_clusters,
        niter=25,
        nredo=3,
        seed=seed % 2**31,  # a C int
        gpu=gpu,
        min_points_per_centroid=1,
    )
    trainer.train(np.ascontiguousarray(features_NK))
    return np.asarray(trainer.centroids, dtype=np.float32)


def _nearest(features_NK: Features, centroids_CK: Features) -> NDArray[np.int64]:
    index = _faiss().IndexFlatL2(features_NK.shape[1])
    index.add(np.ascontiguousarray(centroids_CK))
    _, labels = index.search(np.ascontiguousarray(features_NK), 1)
    return np.asarray(labels[:, 0], dtype=np.int64)


def _merge_small(
    features_NK: Features, labels_N: NDArray[np.int64], num_clusters: int, min_size: int
) -> NDArray[np.int64]:
    sizes = np.bincount(labels_N, minlength=num_clusters)
    sums_CK = np.zeros((num_clusters, features_NK.shape[1]))
    np.add.at(sums_CK, labels_N, features_NK)
    while np.count_nonzero(sizes) > 1:
        small = min(np.flatnonzero(sizes), key=lambda c: (sizes[c], c))
        if sizes[small] >= min_size:
            break
        others = np.flatnonzero((sizes > 0) & (np.arange(num_clusters) != small))
        means = sums_CK[others] / sizes[others, None]
        into = others[np.linalg.norm(means - sums_CK[small] / sizes[small], axis=1).argmin()]
        labels_N = np.where(labels_N == small, into, labels_N)
        sizes[into] += sizes[small]
        sums_CK[into] += sums_CK[small]
        sizes[small] = 0
    return labels_N


def central_samples(
    features_NK: Features, written_N: NDArray[np.bool_], domains_N: NDArray[np.int64], count: int
) -> list[list[int]]:
    """For each domain the samples nearest its mean, nearest first."""
    central: list[list[int]] = []
    for domain in range(int(domains_N.max()) + 1):
        members = np.flatnonzero(domains_N == domain)
        usable = members[written_N[members]] if written_N[members].any() else members
        distance = np.linalg.norm(features_NK[usable] - features_NK[usable].mean(axis=0), axis=1)
        central.append([int(i) for i in usable[np.argsort(distance, kind="stable")[:count]]])
    return central


def nearest_domain_counts(
    features_NK: Features,
    written_N: NDArray[np.bool_],
    domains_N: NDArray[np.int64],
    num_domains: int,
    others_MK: Features,
) -> NDArray[np.int64]:
    """How many of M other samples are nearest to each domain's centroid, shape D.

    A centroid is the mean of a domain's samples that have features; a domain without any is nearest to none.
    """
    counts_D = np.bincount(domains_N[written_N], minlength=num_domains)
    sums_DK = np.zeros((num_domains, features_NK.shape[1]))
    np.add.at(sums_DK, domains_N[written_N], features_NK[written_N])
    present = np.flatnonzero(counts_D)
    centroids_CK = (sums_DK[present] / counts_D[present, None]).astype(np.float32)
    return np.bincount(present[_nearest(others_MK, centroids_CK)], minlength=num_domains)


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        raise DidsError("faiss is not installed; `pip install faiss-gpu` on Linux x86-64, else `faiss-cpu`") from None
    return faiss
