"""Domains spoilt on purpose: a share of each domain's samples changes places with those of others (Appendix H)."""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..artifacts.domain_map import DomainMap
from ..errors import refuse

Relabel = Callable[[list[str], NDArray[np.int64]], NDArray[np.int64]]


def swapped_labels(domains_N: NDArray[np.int64], num_domains: int, share: float, seed: int) -> NDArray[np.int64]:
    """Domains of the same sizes, of each of which `share` of the samples now come from other ones.

    Which samples move, and where to, is random; none of them stays. So a domain that is larger than its share of
    all the others together allows gives only as many as these do.
    """
    generator = np.random.default_rng(seed)
    counts_D = np.rint(share * np.bincount(domains_N, minlength=num_domains)).astype(np.int64)
    largest = int(counts_D.argmax())
    counts_D[largest] = min(counts_D[largest], counts_D.sum() - counts_D[largest])
    moving_M = np.concatenate(
        [generator.permutation(np.flatnonzero(domains_N == d))[:count] for d, count in enumerate(counts_D)]
    )
    result_N = domains_N.copy()
    result_N[moving_M] = _elsewhere(domains_N[moving_M], num_domains, generator)
    return result_N


def _elsewhere(old_M: NDArray[np.int64], num_domains: int, generator: np.random.Generator) -> NDArray[np.int64]:
    """The same labels in another order, so that none is where it was.

    What a shuffle left in place trades with a sample that neither was in its domain nor now is: there are enough
    of these, since no label is on more than half of the samples.
    """
    new_M: NDArray[np.int64] = generator.permutation(old_M)
    for domain in range(num_domains):
        stuck = np.flatnonzero((old_M == domain) & (new_M == domain))
        free = generator.permutation(np.flatnonzero((old_M != domain) & (new_M != domain)))[: len(stuck)]
        new_M[stuck], new_M[free] = new_M[free], domain
    return new_M


def swapped_map(domain_map: DomainMap, share: float, seed: int) -> DomainMap:
    """The map with `share` of each domain's samples swapped, the same whatever the order of its rows.

    Rows of equal content in a source are one sample here. Typical texts are dropped, since they no longer are.
    Raises DidsError where there are no other domains, or the map was swapped before.
    """
    if len(np.unique(domain_map.domains_N)) < 2:
        raise refuse("dids_swap_domains", share, "0 with one domain, which has none to change places with")
    if before := domain_map.inputs.get("swapped"):
        raise refuse("dids_swap_domains", share, f"0 with a map whose samples were swapped before ({before})")
    names = domain_map.names
    return relabelled_map(
        domain_map,
        lambda _, domains_N: swapped_labels(domains_N, len(names), share, seed),
        {"swapped": {"share": share, "seed": seed}},
    )


def relabelled_map(domain_map: DomainMap, relabel: Relabel, inputs: dict[str, Any]) -> DomainMap:
    """The map with its samples in other domains of the same names, and with these `inputs` besides its own.

    `relabel` gets the samples' sources and domains, in an order that is the same whatever that of the map's rows, and
    returns their new domains. Rows of equal content in a source are one sample. Typical texts are dropped.
    """
    old = domain_map.lookup()
    pairs = sorted(old)
    new_N = relabel([source for source, _ in pairs], np.array([old[pair] for pair in pairs], dtype=np.int64))
    new = dict(zip(pairs, new_N.tolist(), strict=True))
    rows = zip(domain_map.sources_N.to_pylist(), domain_map.keys_N.to_pylist(), strict=True)
    return dataclasses.replace(
        domain_map,
        domains_N=np.array([new[pair] for pair in rows], dtype=np.int64),
        typical_texts={},
        inputs={**domain_map.inputs, **inputs},
    )
