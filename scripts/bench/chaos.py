"""Trainings that are killed, and starved, at random, and what comes of them.

    python scripts/bench/chaos.py --kills 50 --seed 0 --results kills.jsonl
    python scripts/bench/chaos.py --faults

Each kill is a SIGKILL to a run and all its processes, at a random moment of a stage that is drawn (loading, the
gradient stage, clustering, a proxy run, training, an update, a checkpoint, the report). Then the same command runs to
its end, and store, maps, logs and weights have to be those of a run that was not disturbed, bit for bit. A line of JSON
a kill; the `--results` that are there count, so a long run can be broken off, too.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from scripts.bench import children
from scripts.bench.children import Child, differences, outcome
from tests.integration import support

SAVING = {"save_strategy": "steps", "save_steps": 3, "save_total_limit": 2, "overwrite_output_dir": False}
KINDS = {
    "clusters": {},
    "proxy runs": {**children.BY_SOURCE, "mix_strategy": "doremi", "max_samples": 40},
    "streamed": {**children.BY_SOURCE, "streaming": True, "buffer_size": 60},
}
PLACES = [(kind, ranks, workers) for kind in KINDS for ranks in (1, 2) for workers in (0, 2)]


class Chaos:
    """Runs in a folder, each compared with one of its kind that nobody disturbed."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.world = children.make_world(folder / "world")
        self.whole: dict[Any, tuple[list[Any], dict[str, Any]]] = {}

    def values(self, folder: Path, kind: str, ranks: int, workers: int) -> dict[str, Any]:
        size = {"max_steps": 10, "per_device_train_batch_size": 8 // ranks, "dataloader_num_workers": workers}
        return support.arguments(self.world, folder, **SAVING, **size, **KINDS[kind])

    def undisturbed(self, place: Any) -> tuple[list[Any], dict[str, Any]]:
        """When its stages began and ended, and what it came to."""
        if place not in self.whole:
            folder = self.folder / "whole" / "-".join(map(str, place)).replace(" ", "_")
            child = Child(folder, self.values(folder, *place), place[1], small_parts)
            if not child.wait():
                raise RuntimeError(f"{place}: {child.said()}")
            marks = child.marks()
            self.whole[place] = [("loading", 0.0, marks[0][1]), *marks], outcome(folder)
        return self.whole[place]

    def differs(self, child: Child, place: Any) -> list[str]:
        """What a run has other than an undisturbed one when it has ended; its last words where it failed."""
        return differences(outcome(child.folder), self.undisturbed(place)[1]) if child.wait() else [child.said()]

    def kill(self, number: int, seed: int) -> dict[str, Any]:
        """Kill one run, let it go on, and say what differs."""
        rng = random.Random(f"{seed}/{number}")
        place = rng.choice(PLACES)
        marks, _ = self.undisturbed(place)
        stage = rng.choice(sorted({stage for stage, *_ in marks}))
        spans = [(begin, end) for name, begin, end in marks if name == stage]
        turn, fraction = rng.randrange(len(spans)), rng.random()
        folder = self.folder / "killed"
        shutil.rmtree(folder, ignore_errors=True)
        values = self.values(folder, *place)
        child = Child(folder, values, place[1], small_parts)
        if stage != "loading":
            child.wait_until(lambda: sum(name == stage for name, *_ in child.marks()) > turn)
        due = time.monotonic() + fraction * (spans[turn][1] - spans[turn][0])
        in_time = child.wait_until(lambda: time.monotonic() >= due)
        child.kill()
        differ = self.differs(Child(folder, values, place[1], small_parts), place)
        where = {"kind": place[0], "ranks": place[1], "workers": place[2], "stage": stage, "turn": turn}
        return {"number": number, **where, "at": round(fraction, 3), "killed": in_time, "differ": differ}


def small_parts() -> None:
    """A store of several parts, as one of many samples is."""
    from llamafactory_dids.artifacts.gradient_store import open_store
    from llamafactory_dids.integration.domains import features

    features.open_store = lambda *inputs: open_store(*inputs, part_rows=50)


# --- faults that are not kills -------------------------------------------------------------------------------------


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[None]:
    """A disk of so many bytes at the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True, capture_output=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def _then_well(chaos: Chaos, folder: Path, place: Any, said: str) -> dict[str, Any]:
    """The same command once the fault is gone."""
    again = Child(folder, chaos.values(folder, *place), place[1], small_parts)
    return {"said": said, "differ": chaos.differs(again, place)}


def disk_full(chaos: Chaos, share: float) -> dict[str, Any]:
    """A disk with room for a share of what a run writes; then one with enough."""
    place, folder = ("clusters", 1, 0), chaos.folder / "full"
    whole = chaos.folder / "whole" / "clusters-1-0"
    chaos.undisturbed(place)
    size = sum(path.stat().st_size for path in whole.rglob("*") if path.is_file())
    with small_disk(folder, int(share * size)):
        child = Child(folder, chaos.values(folder, *place), 1, small_parts)
        failed, said = not child.wait(), child.said()
        kept = chaos.folder / "kept"
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(folder, kept)
    shutil.copytree(kept, folder, dirs_exist_ok=True)
    return {"failed": failed, **_then_well(chaos, folder, place, said)}


def read_only_output(chaos: Chaos) -> dict[str, Any]:
    """An output folder that cannot be written to, found out before anything is made."""
    place, folder = ("clusters", 1, 0), chaos.folder / "read_only"
    with small_disk(folder / "out", 1 << 20):
        subprocess.run(["mount", "-o", "remount,ro", folder / "out"], check=True)
        child = Child(folder, chaos.values(folder, *place), 1, small_parts)
        failed, made = not child.wait(), (folder / "cache").exists()
    return {"failed": failed, "made_before": made, "said": child.said(), "differ": ["features were made"] * made}


def clock_jumps_back(chaos: Chaos) -> dict[str, Any]:
    """The wall clock goes back by a day at the first checkpoint."""
    place, folder = ("clusters", 1, 0), chaos.folder / "clock"

    def prepare() -> None:
        small_parts()
        real, first = time.time, folder / "out" / "checkpoint-3"
        time.time = lambda: real() - 86_400 * first.exists()

    child = Child(folder, chaos.values(folder, *place), 1, prepare)
    return {"differ": chaos.differs(child, place)}


def two_runs_share_a_cache(chaos: Chaos) -> dict[str, Any]:
    """Two runs that make the same domains at once."""
    place, folder = ("clusters", 1, 0), chaos.folder / "shared"
    values = [chaos.values(folder, *place) | {"output_dir": str(folder / name)} for name in ("out", "other")]
    runs = [Child(folder / f"run{i}", own, 1, small_parts) for i, own in enumerate(values)]
    well = [run.wait() for run in runs]
    expected, found = chaos.undisturbed(place)[1], outcome(folder)
    others = {name.replace("other/", "out/"): value for name, value in found.items() if name.startswith("other/")}
    own = {name: value for name, value in found.items() if not name.startswith("other/")}
    ours = {name: value for name, value in expected.items() if name in others}
    return {"differ": [*differences(own, expected), *differences(others, ours), *(["failed"] if not all(well) else [])]}


def rename_is_not_atomic(chaos: Chaos, seed: int) -> dict[str, Any]:
    """A file system that copies where it should rename, and a kill meanwhile: halves are refused, or made anew."""
    place, folder = ("clusters", 1, 0), chaos.folder / f"copied{seed}"
    rng = random.Random(seed)

    def prepare() -> None:
        small_parts()

        def copying(source: Any, target: Any) -> None:
            data = Path(source).read_bytes()
            with open(target, "wb") as stream:
                stream.write(data[: len(data) // 2])
                stream.flush()
                time.sleep(0.02)
                stream.write(data[len(data) // 2 :])
            os.unlink(source)

        os.replace = copying

    child = Child(folder, chaos.values(folder, *place), 1, prepare)
    stage = rng.choice(("gradients", "clustering", "checkpoint"))
    child.wait_until(lambda: any(name == stage for name, *_ in child.marks()))
    due = time.monotonic() + rng.random()
    child.wait_until(lambda: time.monotonic() > due)
    child.kill()
    found = _then_well(chaos, folder, place, "")
    if found["differ"] and "DidsError" in found["differ"][0]:  # it names what to delete
        said = found["differ"][0]
        shutil.rmtree(folder / "cache")
        found = _then_well(chaos, folder, place, said)
    return {"stage": stage, **found}


def rank_dies(chaos: Chaos) -> dict[str, Any]:
    """One of two ranks is killed while they train; torchrun and the other one."""
    folder = chaos.folder / "ranks"
    values = chaos.values(folder, "streamed", 2, 0) | {"max_steps": 5000, "save_strategy": "no"}
    path = support.write_yaml(folder / "run.yaml", values)
    driver = str(Path(support.__file__).with_name("rank_driver.py"))
    process = support.start(["torchrun", "--standalone", "--nproc-per-node", "2", driver, str(path), str(folder)])
    log = folder / "out" / "dids" / "mixture.jsonl"
    while process.poll() is None and not (log.exists() and log.read_text().count("\n") > 1):
        time.sleep(0.1)
    ranks = [int(pid) for pid in Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()]
    os.kill(ranks[-1], signal.SIGKILL)
    began = time.monotonic()
    code, _, stderr = support.finish(process)
    seconds = time.monotonic() - began
    left = [pid for pid in ranks if Path(f"/proc/{pid}").exists()]
    reasons = [line.strip() for line in stderr.split("\n") if "SIGKILL" in line or "exitcode" in line]
    differ = [what for what, bad in (("too late", seconds > 60), ("left", left), ("no reason", not reasons)) if bad]
    return {"code": code, "seconds": round(seconds, 1), "said": reasons[-1:], "differ": differ}


FAULTS: dict[str, Callable[[Chaos], dict[str, Any]]] = {
    **{
        f"disk full at {share:.0%}": lambda chaos, share=share: disk_full(chaos, share)
        for share in (0.05, 0.3, 0.6, 0.9)
    },
    "read-only output": read_only_output,
    "clock jumps back": clock_jumps_back,
    "two runs share a cache": two_runs_share_a_cache,
    **{
        f"rename is not atomic, {seed}": lambda chaos, seed=seed: rename_is_not_atomic(chaos, seed) for seed in range(3)
    },
    "a rank dies": rank_dies,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Kill and starve trainings, and compare them with undisturbed ones.")
    parser.add_argument("--kills", type=int, default=0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", nargs="*", choices=FAULTS, help="all where none is named")
    parser.add_argument("--results", type=Path, help="a file of lines that grows")
    arguments = parser.parse_args()
    done = len(arguments.results.read_text().splitlines()) if arguments.results and arguments.results.exists() else 0
    bad = 0

    def tell(line: dict[str, Any]) -> None:
        nonlocal bad
        bad += bool(line["differ"]) or not line.get("failed", True)
        print(json.dumps(line, ensure_ascii=False), flush=True)
        if arguments.results:
            with open(arguments.results, "a", encoding="utf-8") as stream:
                stream.write(json.dumps(line, ensure_ascii=False) + "\n")

    with tempfile.TemporaryDirectory() as name:
        chaos = Chaos(Path(name))
        for number in range(done, arguments.kills):
            tell(chaos.kill(number, arguments.seed))
        for fault in (arguments.faults or FAULTS) if arguments.faults is not None else ():
            tell({"fault": fault, **FAULTS[fault](chaos)})
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
