"""What it takes a resumed run to get back to its place in the order of the samples; no data is loaded for it.

    python scripts/bench/resume.py --samples 1000000 --domains 72

The place is reached twice: the sampler is sought to it, as when a checkpoint is read, and then the host's loader skips
the batches that were trained on (accelerate's `skip_first_batches`), which asks the sampler for their indices.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate.data_loader import prepare_data_loader, skip_first_batches
from torch.utils.data import DataLoader, Dataset

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llamafactory_dids.training.sampler import MixtureSampler
from scripts.bench import timing


class Untouched(Dataset):  # type: ignore[type-arg]
    """As many samples as it says, of which each that is loaded is counted."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.loaded = 0

    def __len__(self) -> int:
        return self.size

    def __getitem__(self, index: int) -> int:
        self.loaded += 1
        return index


def make(arguments: argparse.Namespace, max_repeats: int | None) -> MixtureSampler:
    """A sampler with the history of a run: an even start, and then `--updates` mixtures, evenly over the samples."""
    rng = np.random.default_rng(0)
    domains_N = rng.integers(0, arguments.domains, arguments.samples).astype(np.int32)
    even_D = np.full(arguments.domains, 1 / arguments.domains)
    sampler = MixtureSampler(domains_N, even_D, seed=0, epoch_size=2 * arguments.samples, max_repeats=max_repeats)
    starts = np.linspace(0, arguments.samples, arguments.updates + 2, dtype=int)[1:-1]
    sampler.history += [(int(start), rng.dirichlet(np.ones(arguments.domains))) for start in starts]
    return sampler


def skip(sampler: MixtureSampler, arguments: argparse.Namespace) -> int:
    """Let the host's loader skip all samples but those of the last batch; how many were loaded for it."""
    data = Untouched(arguments.samples)
    loader = prepare_data_loader(DataLoader(data, arguments.batch, sampler=sampler), num_processes=1, process_index=0)
    sampler.set_epoch(0)
    next(iter(skip_first_batches(loader, arguments.samples // arguments.batch - 1)))
    return data.loaded


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the way back to a place in the order of the samples.")
    timing.add_arguments(parser, rounds=3)
    parser.add_argument("--samples", type=int, default=1_000_000)
    parser.add_argument("--domains", type=int, default=72)
    parser.add_argument("--updates", type=int, default=25)
    parser.add_argument("--batch", type=int, default=16)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    result: dict[str, Any] = {}
    for exhausted, max_repeats in (("reshuffle", None), ("drop", 1)):
        sampler, loaded = make(arguments, max_repeats), set()

        def seek(sampler: MixtureSampler = sampler) -> None:
            sampler.seek(0)
            sampler.seek(arguments.samples)

        def skipped(sampler: MixtureSampler = sampler, loaded: set[int] = loaded) -> None:
            loaded.add(skip(sampler, arguments))

        seconds = timing.in_turns({"sought": seek, "skipped by the loader": skipped}, arguments.rounds, arguments.clock)
        result |= {f"{exhausted}, {name}, seconds": min(values) for name, values in seconds.items()}
        result[f"{exhausted}, samples loaded"] = max(loaded)
    title = f"resume after {arguments.samples:,} samples of {arguments.domains:,} domains, {arguments.updates} updates"
    timing.report(title, result | {"machine": timing.machine(arguments)}, arguments.json)


if __name__ == "__main__":
    main()
