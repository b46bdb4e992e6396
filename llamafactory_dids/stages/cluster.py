"""Domains from features: k-means inside each source, or over all sources (section 4.1, method section 1.6).

Shapes: `N` samples, `M` of them, `R` samples of a part of a store, `K` dims, `S` sources.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..artifacts.gradient_store import GradientStore
from ..errors import DidsError
from .bar import progress
from .kmeans import Features, Indices, Read, kmeans_labels

MOST = 72  # default: the paper's number, for 940,000 samples


def number_for(num_samples: int, num_groups: int, min_size: int) -> int:
    """The default number of domains for so many samples.

    A domain gets twice `min_size` samples on average. Clusters are of unequal size, and one below `min_size` joins its
    nearest, so more domains would not survive. At most 72: beyond, the paper gains little (62.3 with 72, 62.7 with
    1152), and each domain's gradient takes memory and comes from fewer samples of a window. At least one for each
    group.
    """
    return max(num_groups, min(MOST, num_samples // (2 * min_size)), 1)


def check_one_each(num_domains: int, num_sources: int) -> None:
    """Raise DidsError for fewer domains than sources. Clusters are within a source, so each source has at least one."""
    if num_domains < num_sources:
        raise DidsError(
            f"dids_num_domains: got {num_domains}, allowed: at least one for each of the {num_sources} datasets"
        )


def check_enough(num_domains: int, num_samples: int) -> None:
    """Raise DidsError for more domains than training samples. No domain is empty."""
    if num_domains > num_samples:
        raise DidsError(
            f"dids_num_domains: got {num_domains}, allowed: at most the number of training samples, {num_samples}"
        )


def domain_shares(sizes_S: Sequence[int], num_domains: int, how: str) -> list[int]:
    """The number of domains of each source: by the root of its size (`sqrt`), or equal (`equal`).

    The numbers add up to `num_domains`. Each is at least one, and at most the source's number of samples. Raises
    DidsError if this is impossible.
    """
    check_one_each(num_domains, len(sizes_S))
    check_enough(num_domains, sum(sizes_S))
    weights = np.sqrt(np.asarray(sizes_S, float)) if how == "sqrt" else np.ones(len(sizes_S))
    shares = np.ones(len(sizes_S), dtype=int)
    for _ in range(num_domains - len(sizes_S)):
        # the source that is furthest below its due gets the next domain
        due = np.where(shares < np.asarray(sizes_S), weights / (shares + 0.5), -1.0)
        shares[int(due.argmax())] += 1
    return [int(share) for share in shares]


class StoredFeatures:
    """Reads the rows of a store in fp32, at unit length or their own length. `written_N` marks rows with features."""

    def __init__(self, store: GradientStore, normalize: bool) -> None:
        self.store = store
        parts = [(norm_R, written_R) for _, _, norm_R, written_R in store.read_parts()]
        self.written_N = np.concatenate([written_R for _, written_R in parts])
        self._norm_N = None if normalize else np.concatenate([norm_R for norm_R, _ in parts])

    def __call__(self, indices_M: Indices) -> Features:
        """The rows at ascending indices, shape (M, K)."""
        features_MK = np.empty((len(indices_M), self.store.dim), dtype=np.float32)
        parts_M = indices_M // self.store.part_rows
        bounds = [*np.flatnonzero(np.diff(parts_M, prepend=-1)), len(indices_M)]
        for start, stop in zip(bounds, bounds[1:], strict=False):
            part = int(parts_M[start])
            rows = self.store.read_rows(part)[indices_M[start:stop] - part * self.store.part_rows]
            # torch converts float16 many numbers at a time, numpy one by one
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
    """The domain of each sample, shape N, numbered source by source, and within a source from large to small.

    A sample without features joins its source's largest domain. Raises DidsError for a source without samples.
    """
    labels_N = np.full(len(sources_N), -1, dtype=np.int64)
    first = 0
    with progress("k-means", len(sources_N)) as advance:
        for source, share in enumerate(shares):
            members = np.flatnonzero(sources_N == source)
            if len(members) == 0:
                raise DidsError(f"dataset number {source} has no training samples")
            usable = members[written_N[members]]
            labels_N[members] = first  # the largest domain comes first
            labels_N[usable] = first + kmeans_labels(read, usable, share, min_size=min_size, seed=seed + source)
            first = int(labels_N[members].max()) + 1
            advance(len(members))
    return labels_N
