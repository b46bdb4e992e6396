"""k-means by trying every partition: for a handful of points only."""

import itertools

import numpy as np


def best_partition(points_NK, num_clusters):
    """The partition, as a set of frozensets, of least squared distance to the means."""
    best, partition = np.inf, None
    for labels in itertools.product(range(num_clusters), repeat=len(points_NK)):
        if len(set(labels)) < num_clusters:
            continue
        groups = [[n for n, label in enumerate(labels) if label == c] for c in range(num_clusters)]
        cost = sum(((points_NK[g] - points_NK[g].mean(axis=0)) ** 2).sum() for g in groups)
        if cost < best - 1e-9:
            best, partition = cost, {frozenset(g) for g in groups}
    return partition
