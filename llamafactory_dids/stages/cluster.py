"""Domains from features: k-means inside each source, or over all of them (section 4.1, method section 1.6).

Shapes: `N` samples, `M` of them, `R` of a part of a store, `K` dims, `S` sources.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from ..artifacts.gradient_store import GradientStore
from ..errors import DidsError
from .bar import progress
from .kmeans import Features, Indices, Read, kmeans_labels

MOST = 72  # unless told: the paper's number, of 940,000 samples


def number_for(num_samples: int, num_groups: int, min_size: int) -> int:
    """How many domains so many samples make, where no number is given.

    As many as leave a domain twice `min_size` samples on average: clusters are of unequal size, and one below
    `min_size` joins its nearest, so more would not come out. At most 72: beyond, the paper gains little (62.3 with 72,
    62.7 with 1152), and each domain's gradient takes memory and is of fewer samples of a window. At least one a group.
    """
    return max(num_groups, min(MOST, num_samples // (2 * min_size)), 1)


def check_one_each(num_domains: int, num_sources: int) -> None:
    """Raise DidsError for fewer domains than sources: clusters are within a source, so each has at least one."""
    if num_domains < num_sources:
        raise DidsError(
            f"dids_num_domains: got {num_domains}, allowed: at least one for each of the {num_sources} datasets"
        )


def check_enough(num_domains: int, num_samples: int) -> None:
    """Raise DidsError for more domains than training samples: no domain is empty."""
    if num_domains > num_samples:
        raise DidsError(
            f"dids_num_domains: got {num_domains}, allowed: at most the number of training samples, {num_samples}"
        )


def domain_shares(sizes_S: Sequence[int], num_domains: int, how: str) -> list[int]:
    """How many domains each source gets: by the root of its size (`sqrt`) or the same (`equal`).

    At least one each, never more than a source has samples, `num_domains` in all.
    Raises DidsError where that cannot be.
    """
    check_one_each(num_domains, len(sizes_S))
    check_enough(num_domains, sum(sizes_S))
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
    with progress("k-means", len(sources_N)) as advance:
        for source, share in enumerate(shares):
            members = np.flatnonzero(sources_N == source)
            if len(members) == 0:
                raise DidsError(f"dataset number {source} has no training samples")
            usable = members[written_N[members]]
            labels_N[members] = first  # the largest comes first
            labels_N[usable] = first + kmeans_labels(read, usable, share, min_size=min_size, seed=seed + source)
            first = int(labels_N[members].max()) + 1
            advance(len(members))
    return labels_N
