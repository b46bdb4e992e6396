"""What each stage costs as samples, tokens, domains, tasks and ranks grow: the curves of the README.

    python scripts/bench/curves.py --threads 1 --clock cpu

Each curve doubles one size and leaves the others. Its exponent is that of the last doubling: 1 where the cost grows as
the size does, 0 where it does not.
"""

import argparse
import math
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llamafactory_dids.artifacts.gradient_store import open_store
from llamafactory_dids.core.fisher import impact
from llamafactory_dids.core.projection import Projection
from llamafactory_dids.core.selection import keep_largest
from llamafactory_dids.stages.batching import pad_collate
from llamafactory_dids.stages.cluster import StoredFeatures
from llamafactory_dids.stages.filling import fill_store
from llamafactory_dids.stages.gradients import GradientFeatures, SampleProjector, Samples
from llamafactory_dids.stages.kmeans import MAX_POINTS, MIN_SAMPLE, kmeans_labels
from llamafactory_dids.stages.layers import track_layers
from llamafactory_dids.stages.losses import LanguageModelling
from llamafactory_dids.training.sampler import MixtureSampler
from scripts.bench import timing
from scripts.bench.kmeans import DIM, make_store

SMALL = LlamaConfig(
    vocab_size=2000, hidden_size=192, intermediate_size=512, num_hidden_layers=10, num_attention_heads=4
)
SIZES = (1, 2, 4)  # of each curve's base size

Curve = dict[int, Callable[[], Any]]


def gradient_stage(samples: int, tokens: int, parts: slice = slice(None)) -> Callable[[], Any]:
    """The stage over samples of so many random tokens, or what one rank has of it."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(SMALL).eval().requires_grad_(False)
    rows = [{"input_ids": torch.randint(1, SMALL.vocab_size, (tokens,)).tolist()} for _ in range(samples)]
    projector = SampleProjector(model, track_layers(model, 0.1), LanguageModelling(), 0.1, DIM, 0)

    def run() -> None:
        mine = rows[parts]
        with tempfile.TemporaryDirectory() as folder:
            features = GradientFeatures(Samples(mine, [tokens] * len(mine), pad_collate(0)), projector)
            features.passes.max_samples = 8
            fill_store(open_store(Path(folder), {}, len(mine), DIM), features)

    return run


def clustering(features: StoredFeatures, rows: int, clusters: int) -> Callable[[], Any]:
    return lambda: kmeans_labels(features, np.arange(rows), clusters, min_size=1, seed=0)


def measured_impact(domains: int, tasks: int, entries: int) -> Callable[[], Any]:
    generator = torch.Generator().manual_seed(0)
    domains_DP, tasks_TP = (torch.randn(n, entries, generator=generator) for n in (domains, tasks))
    return lambda: impact(domains_DP, tasks_TP, tasks_TP.square())


def reduction(entries: int) -> Callable[[], Any]:
    """Selection and projection of one gradient."""
    gradient_1P, projection = torch.randn(1, entries), Projection(entries, DIM)
    return lambda: projection.project_sparse(*keep_largest(gradient_1P, 0.1))


def building(samples: int, domains: int) -> Callable[[], Any]:
    domains_N = np.random.default_rng(0).integers(0, domains, samples).astype(np.int32)
    return lambda: MixtureSampler(domains_N, np.full(domains, 1 / domains), seed=0, epoch_size=samples)


def curves(features: StoredFeatures) -> dict[str, Callable[[], Curve]]:
    """By name, what makes a curve: by size, what is timed."""
    rows = features.store.num_rows
    return {
        "gradient stage, samples of 128 tokens": lambda: {16 * n: gradient_stage(16 * n, 128) for n in SIZES},
        "gradient stage, tokens of 16 samples": lambda: {128 * n: gradient_stage(16, 128 * n) for n in SIZES},
        "gradient stage, ranks that share 32 samples: each": lambda: {
            n: gradient_stage(32, 128, slice(0, None, n)) for n in SIZES
        },
        "selection and projection, entries": lambda: {1_000_000 * n: reduction(1_000_000 * n) for n in SIZES},
        f"k-means into 8 (trained on {max(8 * MAX_POINTS, MIN_SAMPLE):,} rows), rows": lambda: {
            rows // 4 * n: clustering(features, rows // 4 * n, 8) for n in SIZES
        },
        f"k-means of {rows:,} rows, domains": lambda: {16 * n: clustering(features, rows, 16 * n) for n in SIZES},
        "impact of 4 tasks (1M entries), domains": lambda: {
            18 * n: measured_impact(18 * n, 4, 1_000_000) for n in SIZES
        },
        "impact of 18 domains (1M entries), tasks": lambda: {
            4 * n: measured_impact(18, 4 * n, 1_000_000) for n in SIZES
        },
        "building the sampler of 1,152 domains, samples": lambda: {
            500_000 * n: building(500_000 * n, 1152) for n in SIZES
        },
    }


def measure(curve: Curve, arguments: argparse.Namespace) -> dict[str, float]:
    """Seconds by size, the least of the rounds since what disturbs only adds, and the exponent."""
    seconds = timing.in_turns({f"{size:,}": run for size, run in curve.items()}, arguments.rounds, arguments.clock)
    least = {name: min(values) for name, values in seconds.items()}
    *_, before, last = least.values()
    return least | {"exponent": math.log2(last / before)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time each stage at doubling sizes.")
    timing.add_arguments(parser, rounds=3)
    parser.add_argument("--rows", type=int, default=16_384, help="of the store that is clustered")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        features = StoredFeatures(make_store(Path(folder), arguments.rows), normalize=True)
        result = {name: {"": measure(make(), arguments)} for name, make in curves(features).items()}
    timing.report("cost curves", {**result, "machine": timing.machine(arguments)}, arguments.json)


if __name__ == "__main__":
    main()
