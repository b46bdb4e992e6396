"""Domains spoilt on purpose: half of each swapped (Appendix H), or each source's samples dealt out again.

python scripts/experiments/maps.py RUN.yaml swapped --output FOLDER     # a map, of the domains that the run would make
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llamafactory_dids.artifacts.domain_map import DomainMap, load_map, save_map  # noqa: E402
from llamafactory_dids.errors import DidsError, refuse  # noqa: E402

SHARE = 0.5  # of each domain's samples that are swapped, in Appendix H
Relabel = Callable[[list[str], NDArray[np.int64]], NDArray[np.int64]]


def shuffled_map(domain_map: DomainMap, seed: int) -> DomainMap:
    """Domains of the same names and sizes, each source's samples dealt out over its domains at random."""
    generator = np.random.default_rng(seed)

    def dealt_again(sources: list[str], domains_N: NDArray[np.int64]) -> NDArray[np.int64]:
        new_N, source_N = domains_N.copy(), np.array(sources)
        for source in np.unique(source_N):
            new_N[source_N == source] = generator.permutation(domains_N[source_N == source])
        return new_N

    return relabelled_map(domain_map, dealt_again, {"shuffled": seed})


def swapped_map(domain_map: DomainMap, seed: int, share: float = SHARE) -> DomainMap:
    """The map with `share` of each domain's samples swapped. Raises DidsError where there are no other domains."""
    if len(np.unique(domain_map.domains_N)) < 2:
        raise refuse("swapped", share, "two domains at least: one has none to change places with")
    num_domains = len(domain_map.names)
    said = {"swapped": {"share": share, "seed": seed}}
    return relabelled_map(domain_map, lambda _, domains_N: swapped_labels(domains_N, num_domains, share, seed), said)


KINDS = {"shuffled": shuffled_map, "swapped": swapped_map}


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


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("run", type=Path, help="the YAML file of a run that clusters")
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--output", type=Path, required=True, help="the map's folder")
    given = parser.parse_args()
    values = yaml.safe_load(given.run.read_text(encoding="utf-8"))
    words = [sys.executable, "-m", "llamafactory_dids", "cluster", str(given.run), "--json"]
    found = subprocess.run(words, stdout=subprocess.PIPE, text=True, check=False)
    if found.returncode != 0:
        raise SystemExit(found.returncode)
    try:
        domain_map = load_map(Path(json.loads(found.stdout)["path"]))
        save_map(KINDS[given.kind](domain_map, values.get("dids_seed", values["seed"])), given.output)
    except DidsError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
