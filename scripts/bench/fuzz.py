"""Spoilt files, one after another, into every reader of what is written to disk.

    python scripts/bench/fuzz.py --executions 1000000 --seed 0

Each execution spoils one file of an artifact (cut, bits flipped, overwritten, of another version, with huge numbers or
headers, with paths that climb out, with a pickle) and reads the artifact in this process. Allowed is a `DidsError` of
one line, or what was written. A file without checksums, as earlier versions wrote them, may read as anything that is
whole. A fault is any other result or exception, memory beyond `--memory`, a file opened outside of the artifact's
folder, code that is run. The files of a fault stay in `--keep`. Prints one line of JSON.
"""

import argparse
import json
import os
import pickle
import random
import re
import resource
import shutil
import struct
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from safetensors.torch import load_file, save_file

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from llamafactory_dids.artifacts import domain_map, gradient_store, run_state, token_losses
from llamafactory_dids.artifacts.files import CHECKSUM, DIGEST, read_json, write_json, write_text
from llamafactory_dids.artifacts.mixture_log import MixtureLog
from llamafactory_dids.artifacts.run_about import save_about
from llamafactory_dids.artifacts.samples import read_table
from llamafactory_dids.errors import DidsError
from llamafactory_dids.report.run import load_run

FORBIDDEN = (
    "exec",
    "os.system",
    "os.exec",
    "os.posix_spawn",
    "os.fork",
    "pickle.",
    "socket.",
    "subprocess.",
    "ctypes.",
)
LINES = 6


class Escaped(Exception):
    """What a reader must not do."""


class Guard:
    """Raises `Escaped` where, while it is on, this process runs code or opens a file that is not below the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.on = str(folder) + os.sep, False
        sys.addaudithook(self)

    def __call__(self, event: str, arguments: tuple[Any, ...]) -> None:
        if not self.on:
            return
        outside = event == "open" and not str(os.path.realpath(os.fsdecode(arguments[0]))).startswith(self.folder)
        if outside or event.startswith(FORBIDDEN):
            self.on = False
            raise Escaped(f"{event} {arguments}"[:200])


class Pickled:
    """A pickle that runs a command."""

    def __reduce__(self) -> Any:
        return os.system, ("true",)


# --- what is written, and how it is read ---------------------------------------------------------------------------

STORE: tuple[Any, ...] = ({"proxy": "tiny", "seed": 1}, 10, 8, 5)


def write_store(folder: Path) -> None:
    store, rng = gradient_store.open_store(folder, *STORE), np.random.default_rng(0)
    for part in range(store.num_parts):
        size = len(store.rows(part))
        store.write_part(part, rng.normal(size=(size, 8)).astype("f2"), rng.random(size, "f4"), np.ones(size, bool))


def read_store(folder: Path) -> Any:
    return [
        [array.tobytes() for array in arrays] for _, *arrays in gradient_store.open_store(folder, *STORE).read_parts()
    ]


def write_map(folder: Path) -> None:
    names, rng = tuple(f"maths/{i}" for i in range(4)), np.random.default_rng(0)
    view = domain_map.View(rng.random((40, 2), "f4"), (0.5, 0.25))
    keys = [f"{int(key):016x}" for key in rng.integers(1 << 62, size=40)]
    told = {"maths/1": ["2 + 2 = 4", "naïve"]}
    made = domain_map.DomainMap(names, keys, ["maths"] * 40, np.arange(40) % 4, told, {"seed": 1, "domains": 4}, view)
    domain_map.save_map(made, folder)


def read_map(folder: Path) -> Any:
    found = domain_map.load_map(folder)
    view = found.view and (found.view.points_N2.tobytes(), found.view.explained_2)
    typical, counts = json.dumps(found.typical_texts), json.dumps(found.describe())
    return found.names, found.digest(), typical, counts, json.dumps(found.inputs), view


def write_log(folder: Path) -> None:
    log = MixtureLog(folder / "mixture.jsonl")
    for step in range(LINES):
        shares = {"sums": 0.5 + step / 100, "数学\u2028": 0.5 - step / 100}
        log.append({"step": step, "samples_seen": 8 * step, "probabilities": shares, "task_loss": {"t": float("nan")}})


def read_log(folder: Path) -> Any:
    log = MixtureLog(folder / "mixture.jsonl")
    log.record()
    return [json.dumps(line, sort_keys=True) for line in log.read()]


def write_checkpoint(folder: Path) -> None:
    write_text(folder / "checkpoint-8" / "optimizer.pt", "moments")
    run_state.save_share(folder / "checkpoint-8", 1, {"sums": torch.arange(3.0)})
    values = {"step": 8, "num_updates": 2, "history_starts": [0, 32], "log": [{"step": 0}], "num_ranks": 2}
    tensors = {"history": torch.rand(2, 4, dtype=torch.float64), "known": torch.tensor([True, False])}
    run_state.save_state(folder / "checkpoint-8", values, tensors)


def read_checkpoint(folder: Path) -> Any:
    whole = run_state.whole_checkpoints(folder)
    values = run_state.load_values(folder / "checkpoint-8")
    if len(whole) != 1:
        raise AssertionError("read, and yet not whole")
    tensors = run_state.load_tensors(whole[0]), run_state.load_share(whole[0], 1)
    return json.dumps(values, sort_keys=True), [_tensors(some) for some in tensors]


def _tensors(found: Any) -> Any:
    return sorted((name, str(tensor.dtype), tensor.tolist()) for name, tensor in found.items())


def write_losses(folder: Path) -> None:
    tables = {name: (torch.rand(3, 5, dtype=torch.float64), torch.tensor([5, 0, 2])) for name in ("a:b/0", "exam")}
    token_losses.save_token_losses(folder, tables)


def read_losses(folder: Path) -> Any:
    return sorted(
        (name, _tensors({"losses": losses, "counts": counts}))
        for name, (losses, counts) in token_losses.load_token_losses(folder).items()
    )


def write_run(folder: Path) -> None:
    write_log(folder)
    write_map(folder)
    save_about(folder, {"hardware": "2 × CPU"}, resumed=False)
    write_json(folder / "cost.json", {"seconds": 12.5, "update_seconds": 1.5})


def read_run(folder: Path) -> Any:
    """What a report reads, but for `config.yaml`, which is text for people; and what a resumed run takes over."""
    run = load_run(folder)
    seen = [run.about, run.cost, run.seconds, run.is_fixed, run.texts_are_random, run.impact_UDT.shape]
    save_about(folder, {"hardware": "1 × CPU"}, resumed=True)
    return [json.dumps(line) for line in run.lines], json.dumps([*seen, read_json(folder / "run.json")["started"]])


def read_tags(folder: Path) -> Any:
    """As `tokenized_path` reads the tags beside saved tokens."""
    return str(
        read_table(folder / "domains.parquet", read_json(folder / "domains.json").get("domains.parquet"), (), "tags")
    )


TARGETS: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "store": (write_store, read_store),
    "map": (write_map, read_map),
    "log": (write_log, read_log),
    "checkpoint": (write_checkpoint, read_checkpoint),
    "losses": (write_losses, read_losses),
    "run": (write_run, read_run),
    "tags": (write_map, read_tags),
}


def without_checksums(folder: Path) -> None:
    """As earlier versions wrote, or as people do who edit."""
    for path in sorted(folder.rglob("*.*"), key=lambda path: path.suffix == ".json"):  # after what they have sizes of
        if path.suffix == ".npy":
            path.write_bytes(path.read_bytes()[:-CHECKSUM])
        elif path.suffix == ".safetensors":
            save_file(load_file(path), path)
        elif path.suffix in (".json", ".jsonl"):
            lines = path.read_text().split("\n") if path.suffix == ".jsonl" else [path.read_text()]
            contents = [json.loads(line) for line in lines if line]
            for content in contents:
                content.pop(DIGEST)
                content.pop(domain_map.PARQUET, None)
                if "files" in content:
                    content["files"] = {name: (path.parent / name).stat().st_size for name in content["files"]}
            path.write_text("".join(json.dumps(content) + "\n" for content in contents))


# --- how a file is spoilt ------------------------------------------------------------------------------------------


def flip(data: bytearray, rng: random.Random) -> bytes:
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
    return data


def cut(data: bytearray, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data))]


def overwrite(data: bytearray, rng: random.Random) -> bytes:
    start, size = rng.randrange(len(data)), rng.choice((1, 8, 64, 512))
    hole = bytes(size) if rng.random() < 0.5 else rng.randbytes(size)
    data[start : start + size] = hole[: len(data) - start]
    return data


def insert(data: bytearray, rng: random.Random) -> bytes:
    start = rng.randrange(len(data))
    data[start:start] = rng.randbytes(rng.choice((1, 4, 100))) if rng.random() < 0.7 else data[: rng.randrange(200)]
    return data


def version(data: bytearray, rng: random.Random) -> bytes:
    new = rng.choice((b"0", b"2", b"99", b"null", b'"1"', b"[]"))
    return re.sub(rb'("schema": ?)\d+', rb"\g<1>" + new, bytes(data)) if b'"schema"' in data else flip(data, rng)


def number(data: bytearray, rng: random.Random) -> bytes:
    """One number of a text, or of a header, made huge, negative, or none."""
    found = list(re.finditer(rb"\d+", bytes(data[:4096])))
    if not found:
        return flip(data, rng)
    start, stop = rng.choice(found).span()
    new = (b"999999999999999999", b"-1", b"NaN", b"1e999", b"Infinity", b"null", b"9" * 5000, b"[[]]", b'"x"', b"{}")
    data[start:stop] = rng.choice(new)
    return data


def header(data: bytearray, rng: random.Random) -> bytes:
    """The first or last bytes, where formats keep their lengths, as a huge number."""
    size = rng.choice((1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, len(data)))
    form = rng.choice(("<Q", "<q", ">Q"))
    at = rng.choice((0, 0, 8, max(0, len(data) - 8)))
    data[at : at + 8] = struct.pack(form, size)
    return data


def climb(data: bytearray, rng: random.Random) -> bytes:
    """A string of a text as a path that leads out."""
    found = list(re.finditer(rb'"[^"\n]*"', bytes(data[:8192])))
    if not found:
        return flip(data, rng)
    start, stop = rng.choice(found).span()
    data[start:stop] = rng.choice(
        (b'"../../../../../../etc/passwd"', b'"/etc/passwd"', b'"file:///etc/passwd"', b'"\\ud800"')
    )
    return data


def replace(data: bytearray, rng: random.Random) -> bytes:
    pickled = pickle.dumps(Pickled())
    objects = b"\x93NUMPY\x01\x00v\x00" + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(117) + b"\n"
    deep = rng.choice((b"[" * 100_000, b'{"a":' * 100_000, b'{"inputs": ' + b"[" * 5000))
    zipped = b"PK\x03\x04" + rng.randbytes(60)
    nested = b"\x93NUMPY\x01\x00v\x00" + b"(" * 117 + b"\n"
    return rng.choice(
        (b"", pickled, objects + pickled, deep, zipped, nested, bytes(rng.randrange(5000)), rng.randbytes(300))
    )


WAYS = (flip, flip, flip, cut, cut, overwrite, insert, version, number, number, header, climb, replace)


# --- the loop ------------------------------------------------------------------------------------------------------


class Target:
    """An artifact, written once, of which one file at a time is spoilt, read and put back."""

    def __init__(self, name: str, folder: Path, sealed: bool) -> None:
        write, self.read = TARGETS[name]
        self.name, self.folder, self.sealed = name, folder, sealed
        write(folder)
        if not sealed:
            without_checksums(folder)
        self.files = {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}
        self.whole = self.read(folder)
        self.restore()

    def restore(self) -> None:
        for path, data in self.files.items():
            path.write_bytes(data)

    def spoil(self, rng: random.Random) -> tuple[str, str, Path]:
        path, way = rng.choice(list(self.files)), rng.choice(WAYS)
        path.write_bytes(way(bytearray(self.files[path]), rng))
        return way.__name__, path.name, path

    def outcome(self, guard: Guard, path: Path) -> str:
        """`refused`, `same`, `read` (what has no checksum, or lost it, and is whole), or what is wrong."""
        guard.on = True
        try:
            found = self.read(self.folder)
        except DidsError as error:
            return "refused" if str(error).isprintable() else f"not a line: {error}"
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt):
                raise
            return f"{type(error).__name__}: {error}"[:300]
        finally:
            guard.on = False
        if found == self.whole or self.is_shorter_log(found):
            return "same"
        struck_out = path.suffix == ".json" and f'"{DIGEST}":'.encode() not in path.read_bytes()
        return "read" if struck_out or not self.sealed else "another result"

    def is_shorter_log(self, found: Any) -> bool:
        """A log that ends at an earlier line is what a run has that was killed there."""
        if self.name == "run":
            return found[0] == self.whole[0][: len(found[0])]
        return self.name == "log" and found == self.whole[: len(found)]


def main() -> None:
    parser = argparse.ArgumentParser(description="Read spoilt files, and count what comes of it.")
    parser.add_argument("--executions", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--memory", type=int, default=512, help="MiB of address space beyond those at the start")
    parser.add_argument("--keep", type=Path, default=Path(tempfile.gettempdir()) / "fuzz_faults")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as name:
        result = fuzz(Path(name).resolve(), arguments)
    print(json.dumps(result), flush=True)
    sys.exit(bool(result["faults"]))


def fuzz(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    targets = [Target(name, folder / f"{name}{seal}", seal) for name in TARGETS for seal in (True, False)]
    guard = Guard(folder)
    pa.set_cpu_count(1)
    np.seterr(over="ignore")  # in the sizes of headers
    warnings.simplefilter("ignore")
    before = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (before + (arguments.memory << 20), resource.RLIM_INFINITY))
    resident, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.monotonic()
    counts: Counter[str] = Counter()
    faults: Counter[str] = Counter()
    for number_of in range(arguments.executions):
        rng = random.Random(f"{arguments.seed}/{number_of}")
        target = rng.choice(targets)
        way, name, path = target.spoil(rng)
        outcome = target.outcome(guard, path)
        if outcome in ("refused", "same", "read"):
            counts[outcome if target.sealed and outcome != "read" else f"{outcome}, without checksums"] += 1
        else:
            kind = f"{target.folder.name} {name} {way}: {outcome}"
            faults[re.sub(r"0x\w+|\d+", "#", kind)[:200]] += 1
            keep = arguments.keep / f"{arguments.seed}-{number_of}-{target.folder.name}"
            if len(faults) < 100 and not keep.exists():
                shutil.copytree(target.folder, keep)
        path.write_bytes(target.files[path])
        if target.name == "run":
            target.restore()  # a resumed run writes
    resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    seconds = time.monotonic() - began
    return {
        "executions": arguments.executions,
        "seed": arguments.seed,
        "seconds": round(seconds, 1),
        "a_second": round(arguments.executions / seconds),
        "outcomes": dict(sorted(counts.items())),
        "faults": dict(faults.most_common(30)),
        "resident_growth_mib": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - resident) >> 10,
    }


if __name__ == "__main__":
    main()
