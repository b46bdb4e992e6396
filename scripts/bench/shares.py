"""Where the time of the gradient stage goes, as shares of a plain forward pass over the same batches.

    python scripts/bench/shares.py --threads 1 --clock cpu

The stage runs as it is; its functions are wrapped, and their seconds added up. What a part calls is not counted twice.
"""

import argparse
import statistics
import sys
from pathlib import Path
from typing import Any

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llamafactory_dids.artifacts.gradient_store import GradientStore
from llamafactory_dids.core import fused
from llamafactory_dids.core.projection import Projection
from llamafactory_dids.stages import gradients as stage
from llamafactory_dids.stages import losses
from scripts.bench import timing
from scripts.bench.gradients import MODELS, Stage
from scripts.bench.overhead_child import Stopwatch

WRAPPED = (
    (stage.GradientEngine, "run", "passes"),
    (losses._CrossEntropy, "forward", "loss"),
    (losses._CrossEntropy, "backward", "loss"),
    (stage, "sample_gradients", "whole gradients"),
    (fused, "keep_largest", "selection"),
    (Projection, "project_sparse", "projection"),
    (GradientStore, "write_part", "files"),
)


def shares(measured: Stage, rounds: int, clock: str) -> dict[str, dict[str, float]]:
    """Median share of each part of the stage, over rounds after one that does not count."""
    stopwatch = Stopwatch(clock)
    for owner, name, part in WRAPPED:
        wrapped = stopwatch.timing(part, getattr(owner, name))
        setattr(owner, name, staticmethod(wrapped) if owner is losses._CrossEntropy else wrapped)
    found: list[dict[str, float]] = []
    for _ in range(rounds + 1):
        start = stopwatch.now()
        measured.forward()
        forward = stopwatch.now() - start
        stopwatch.start()
        measured.run()
        found.append({name: seconds / forward for name, seconds in split(stopwatch.stop()).items()})
    return {name: {"of a forward pass": statistics.median(one[name] for one in found[1:])} for name in found[0]}


def split(parts: dict[str, float]) -> dict[str, float]:
    """Seconds that add up to `seconds`: the passes without the loss in them, and what no part has."""
    parts = dict(parts)
    whole = parts.pop("seconds")
    rest = whole - sum(value for name, value in parts.items() if name != "loss")
    parts["passes"] -= parts["loss"]
    return parts | {"all else": rest, "the stage": whole}


def main() -> None:
    parser = argparse.ArgumentParser(description="Shares of the gradient stage.")
    timing.add_arguments(parser, rounds=3)
    parser.add_argument("--model", choices=sorted(MODELS), default="llama")
    parser.add_argument("--samples", type=int, default=16)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--lengths", type=Path, help="as for gradients.py")
    parser.add_argument("--liger", action="store_true", help="as for gradients.py")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    measured = Stage(arguments)
    measured.features.passes.max_samples = arguments.batch
    measured.collect()
    result: dict[str, Any] = {"part": shares(measured, arguments.rounds, arguments.clock)}
    title = f"shares of the gradient stage, {arguments.model}"
    timing.report(title, {**result, "machine": timing.machine(arguments)}, arguments.json)


if __name__ == "__main__":
    main()
