"""Questions about finished domains: their means, the samples nearest a mean, the domain nearest a sample.

Shapes: `N` samples, `M` of them or others, `B` samples of a block, `K` dims, `D` domains.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from .kmeans import Features, Indices, Read, label_sums, nearest_centroids, read_blocks


def domain_means(
    read: Read, written_N: NDArray[np.bool_], domains_N: Indices, num_domains: int
) -> tuple[Features, NDArray[np.int64]]:
    """The mean (D, K) of each domain's samples that have features, and their number (D)."""
    rows_M = np.flatnonzero(written_N)
    counts_D = np.bincount(domains_N[rows_M], minlength=num_domains)
    sums_DK: Any = 0.0
    for block, features_BK in read_blocks(read, rows_M):
        sums_DK = sums_DK + label_sums(features_BK, domains_N[rows_M[block]], num_domains)
    if not len(rows_M):
        return np.zeros((num_domains, 1), dtype=np.float32), counts_D
    return (sums_DK / np.maximum(counts_D, 1)[:, None]).astype(np.float32), counts_D


def central_samples(read: Read, written_N: NDArray[np.bool_], domains_N: Indices, count: int) -> list[list[int]]:
    """At most `count` samples of each domain, nearest to its mean first. Without features: its first samples."""
    num_domains = int(domains_N.max()) + 1
    means_DK, counts_D = domain_means(read, written_N, domains_N, num_domains)
    distance_N = np.where(written_N, 0.0, np.inf)
    rows_M = np.flatnonzero(written_N)
    for block, features_BK in read_blocks(read, rows_M):
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

    A domain without features is never the nearest.
    """
    means_DK, counts_D = domain_means(read, written_N, domains_N, num_domains)
    present = np.flatnonzero(counts_D)
    return present[nearest_centroids(means_DK[present], others_MK)]
