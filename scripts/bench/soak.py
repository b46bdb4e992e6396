"""A long run of tiny steps: whether memory, file handles, threads and the time of an update stay flat.

    python scripts/bench/soak.py --steps 20000 --updates 500 --resumes 10

The run is killed at evenly spread steps and resumed in a process of its own. Within each process what it holds is noted
at every update; a slope is the mean over the processes, with a 95% interval over them, per thousand steps. The first
half of each process is left out, in which caches fill. Prints one line of JSON.
"""

import argparse
import json
import os
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
from scipy import stats

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench import children
from tests.integration import support

SERIES = ("memory, MiB", "handles", "threads", "update, ms")


def watch(path: Path) -> None:
    """Note at each update what the process holds."""
    from llamafactory_dids.training.controller import MixtureController

    update = MixtureController._update

    def watching(self: Any, step: int) -> Any:
        began = time.monotonic()
        found = update(self, step)
        took = 1000 * (time.monotonic() - began)
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        held = [
            pages * resource.getpagesize() / 2**20,
            len(os.listdir("/proc/self/fd")),
            threading.active_count(),
            took,
        ]
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(json.dumps([step, *held]) + "\n")
        return found

    MixtureController._update = watching


def slopes(parts: list[np.ndarray[Any, Any]]) -> dict[str, dict[str, float]]:
    """Of each series per thousand steps: the mean over the processes, and how far a 95% interval goes around it."""
    found = {}
    for i, name in enumerate(SERIES, start=1):
        each = [1000 * np.polyfit(part[:, 0], part[:, i], 1)[0] for part in (p[len(p) // 2 :] for p in parts)]
        spread = stats.t.ppf(0.975, len(each) - 1) * np.std(each, ddof=1) / len(each) ** 0.5
        middle = float(np.median(np.concatenate([part[:, i] for part in parts])))
        found[name] = {
            "median": round(middle, 3),
            "slope": round(float(np.mean(each)), 4),
            "±": round(float(spread), 4),
        }
    return found


def soak(folder: Path, steps: int, updates: int, resumes: int) -> dict[str, Any]:
    world, parts, began = children.make_world(folder / "world"), [], time.monotonic()
    per_part = steps // (resumes + 1)
    values = support.arguments(
        world,
        folder,
        **children.BY_SOURCE,
        dids_task_samples=4,
        max_steps=steps,
        per_device_train_batch_size=1,
        cutoff_len=32,
        dids_update_samples=steps // updates,
        save_strategy="steps",
        save_steps=per_part,
        save_total_limit=1,
        overwrite_output_dir=False,
        logging_steps=per_part,
    )
    log, sizes = folder / "out" / "dids" / "mixture.jsonl", []
    while True:
        path = folder / f"held{len(parts)}.jsonl"
        child = children.Child(folder, values, prepare=lambda path=path: watch(path))
        checkpoint = folder / "out" / f"checkpoint-{per_part * (len(parts) + 1)}" / "dids_state.json"
        last = len(parts) == resumes
        if not last and child.wait_until(checkpoint.exists, seconds=36_000):
            child.kill()
        elif not child.wait(36_000):
            raise RuntimeError(child.said())
        parts.append(np.array([json.loads(line) for line in path.read_text().splitlines()]))
        sizes.append(log.stat().st_size)
        if last:
            break
    lines = log.read_text().count("\n")
    return {
        "steps": steps,
        "updates": lines - 2,
        "resumes": resumes,
        "seconds": round(time.monotonic() - began),
        "per_thousand_steps": slopes(parts),
        "bytes_a_line": [round(size / max(1, round(lines * (i + 1) / len(sizes)))) for i, size in enumerate(sizes)],
        "checkpoint_bytes": sum(p.stat().st_size for p in folder.glob("out/checkpoint-*/dids_state*")),  # one is kept
    }


def main() -> None:
    parser = argparse.ArgumentParser(description="Train for long in tiny steps, and say what grows.")
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--updates", type=int, default=500)
    parser.add_argument("--resumes", type=int, default=10)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        print(json.dumps(soak(Path(name), arguments.steps, arguments.updates, arguments.resumes), ensure_ascii=False))


if __name__ == "__main__":
    main()
