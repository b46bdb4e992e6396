"""The sampler: time and memory to build it, draws a second, and what a change of the probabilities costs.

    python scripts/bench/sampler.py --samples 10000000 --domains 1152

Against torch's WeightedRandomSampler over the same samples, which draws with replacement and all at once.
"""

import argparse
import itertools
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import WeightedRandomSampler

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llamafactory_dids.training.sampler import CHUNK, MixtureSampler
from scripts.bench import timing


def build(domains_N: np.ndarray, p_D: np.ndarray, clock: str) -> tuple[MixtureSampler, float, float]:
    """(sampler, seconds, MiB that it holds at most while it is built)."""
    now = timing.clock(clock)
    start = now()
    sampler = MixtureSampler(domains_N, p_D, seed=0, epoch_size=len(domains_N))
    seconds = now() - start
    tracemalloc.start()
    MixtureSampler(domains_N, p_D, seed=0, epoch_size=len(domains_N))
    mib = tracemalloc.get_traced_memory()[1] / 2**20
    tracemalloc.stop()
    return sampler, seconds, mib


def change(num_domains: int, num_samples: int, clock: str) -> dict[str, float]:
    """Seconds of a change of the probabilities in the middle of a run, and with the first draw after it."""
    now = timing.clock(clock)
    domains_N = np.arange(num_samples) % num_domains
    sampler = MixtureSampler(domains_N, np.full(num_domains, 1 / num_domains), seed=0, epoch_size=num_samples)
    draws = iter(sampler)
    list(itertools.islice(draws, CHUNK // 2))
    p_D = np.random.default_rng(0).dirichlet(np.ones(num_domains))
    start = now()
    for _ in range(100):
        sampler.set_probabilities(p_D)
    alone = (now() - start) / 100
    start = now()
    for _ in range(20):
        sampler.set_probabilities(p_D)
        next(draws)
    return {"alone": alone, "with the first draw": (now() - start) / 20}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the sampler.")
    timing.add_arguments(parser, rounds=3)
    parser.add_argument("--samples", type=int, default=10_000_000)
    parser.add_argument("--domains", type=int, default=1152)
    parser.add_argument("--draws", type=int, default=1_000_000)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rng = np.random.default_rng(0)
    domains_N = rng.integers(0, arguments.domains, arguments.samples).astype(np.int32)
    p_D = rng.dirichlet(np.ones(arguments.domains))
    sampler, seconds, mib = build(domains_N, p_D, arguments.clock)
    weights_N = torch.from_numpy((p_D / np.bincount(domains_N, minlength=arguments.domains))[domains_N])

    def ours() -> None:
        for _ in itertools.islice(iter(sampler), arguments.draws):
            pass

    def torchs() -> None:
        for _ in WeightedRandomSampler(weights_N, arguments.draws):
            pass

    rows = timing.ratios(timing.in_turns({"ours": ours, "torch": torchs}, arguments.rounds, arguments.clock), "torch")
    result: dict[str, Any] = {
        "build": {"seconds": seconds, "MiB": mib},
        "draws": {name: row | {"a second": arguments.draws / row["seconds"]} for name, row in rows.items()},
        "change of probabilities, seconds": {
            f"{domains} domains, {samples:,} samples": change(domains, samples, arguments.clock)
            for domains, samples in ((72, 100_000), (1152, 100_000), (1152, 1_000_000))
        },
        "machine": timing.machine(arguments),
    }
    title = f"sampler, {arguments.samples:,} samples, {arguments.domains:,} domains"
    timing.report(title, result, arguments.json)


if __name__ == "__main__":
    main()
