"""Trainings in forked children of a process that imported everything once: started in no time, watched, killed.

A child is what a user's process is from there on: it reads its data, makes its process group and its loader's workers,
and ends. Each is a process group of its own, so that a kill takes its workers too.
"""

import os
import shutil
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

import torch

from llamafactory_dids.artifacts.mixture_log import MixtureLog
from tests.integration import support

torch.set_num_threads(1)
PACKAGE = "llamafactory_dids"
STAGES = {  # a module, and what of it begins and ends a stage
    "gradients": (f"{PACKAGE}.integration.domains.features", "fill_store"),
    "clustering": (f"{PACKAGE}.integration.domains.making", "_cluster"),
    "proxy run": (f"{PACKAGE}.integration.plan.proxy_runs", "_make"),
    "training": ("transformers.trainer.Trainer", "_inner_training_loop"),
    "update": (f"{PACKAGE}.training.controller.MixtureController", "_update"),
    "checkpoint": (f"{PACKAGE}.training.trainer.MixingTrainerMixin", "_save_checkpoint"),
    "report": (f"{PACKAGE}.report.html", "write_report"),
}
BY_SOURCE = {"dids_domains": "source", "dids_num_domains": None, "dids_min_domain_size": None}  # in support.arguments


class Child:
    """A training of one or more ranks in a folder; `prepare` is called in each before it starts."""

    def __init__(
        self, folder: Path, values: dict[str, Any], ranks: int = 1, prepare: Callable[[], Any] | None = None
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.began = folder, time.monotonic()
        self.notes = folder.with_name(f"{folder.name}.notes")  # beside it, since its disk may be full
        shutil.rmtree(self.notes, ignore_errors=True)
        self.notes.mkdir()
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            group = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1]), "WORLD_SIZE": str(ranks)}
        self.pids = [self._fork(rank, values, group if ranks > 1 else {}, prepare) for rank in range(ranks)]
        self.status: dict[int, int] = {}

    def _fork(self, rank: int, values: dict[str, Any], group: dict[str, str], prepare: Any) -> int:
        if pid := os.fork():
            return pid
        code = 1
        try:
            os.setsid()
            os.environ.update(group, **({"RANK": str(rank), "LOCAL_RANK": str(rank)} if group else {}))
            said = os.open(self.notes / f"rank{rank}.txt", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(said, 1), os.dup2(said, 2)
            if rank == 0:
                _mark_stages(os.open(self.notes / "marks", os.O_WRONLY | os.O_CREAT | os.O_APPEND))
            if prepare:
                prepare()
            support.train(values)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush(), sys.stderr.flush()
            os._exit(code)

    def marks(self) -> list[tuple[str, float, float]]:
        """(stage, begin, end) of each stage in the order that they began; an end that is not there yet is infinite."""
        path, found = self.notes / "marks", []
        for line in path.read_text().splitlines() if path.exists() else []:
            kind, stage, at = line.split("\t")
            if kind == "begin":
                found.append([stage, float(at) - self.began, float("inf")])
            else:
                next(one for one in reversed(found) if one[0] == stage and one[2] == float("inf"))[2] = (
                    float(at) - self.began
                )
        return [(stage, begin, end) for stage, begin, end in found]

    def ended(self) -> bool:
        """Whether all ranks have."""
        for pid in set(self.pids) - set(self.status):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                self.status[pid] = os.waitstatus_to_exitcode(status)
        return len(self.status) == len(self.pids)

    def wait_until(self, reached: Callable[[], bool], seconds: float = 600) -> bool:
        """Whether it was reached before all ranks had ended."""
        until = time.monotonic() + seconds
        while not reached():
            if self.ended():
                return False
            if time.monotonic() > until:
                self.kill()
                raise TimeoutError(f"{self.folder}: no end in {seconds} s")
            time.sleep(0.002)
        return True

    def wait(self, seconds: float = 600) -> bool:
        """Whether all ranks ended well."""
        self.wait_until(lambda: False, seconds)
        return not any(self.status.values())

    def kill(self) -> None:
        """SIGKILL to each rank and its workers, as where a machine goes away."""
        for pid in self.pids:
            if pid not in self.status:
                os.killpg(pid, signal.SIGKILL)
        while not self.ended():
            time.sleep(0.002)

    def said(self) -> str:
        """The last words of each rank."""
        found = (path.read_text(errors="replace").strip().split("\n")[-1] for path in self.notes.glob("rank*.txt"))
        return " | ".join(sorted(set(found)))[:600]


def _mark_stages(marks: int) -> None:
    import importlib

    for stage, (place, name) in STAGES.items():
        module, _, attribute = place.rpartition(".")
        owner = getattr(importlib.import_module(module), attribute) if attribute[0].isupper() else None
        owner = owner or importlib.import_module(place)
        setattr(owner, name, _marked(marks, stage, getattr(owner, name)))


def _marked(marks: int, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def marking(*arguments: Any, **keywords: Any) -> Any:
        os.write(marks, f"begin\t{stage}\t{time.monotonic()}\n".encode())
        try:
            return function(*arguments, **keywords)
        finally:
            os.write(marks, f"end\t{stage}\t{time.monotonic()}\n".encode())

    return marking


def in_child(work: Callable[[], Any]) -> None:
    """Do something that starts threads, which would not survive a fork, in a process of its own."""
    if pid := os.fork():
        assert os.waitpid(pid, 0)[1] == 0, "see above"
        return
    try:
        work()
        os._exit(0)
    except BaseException:
        traceback.print_exc()
        os._exit(1)


def make_world(folder: Path) -> support.World:
    """Data sets and models of the integration tests, and everything imported that a training needs."""
    if not (folder / "proxy").exists():
        in_child(lambda: support.make_world(folder))
    support.tuner()
    from llamafactory_dids.report import html, pictures  # noqa: F401

    return support.World(folder)


def outcome(folder: Path) -> dict[str, Any]:
    """What a run came to, without its clock: store, maps, logs, weights; digests of what is long."""
    from llamafactory_dids.artifacts.files import digest

    found: dict[str, Any] = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        name = path.relative_to(folder).as_posix()
        whole = path.name in ("domains.json", "manifest.json") or name == "out/model.safetensors"
        if whole or path.suffix in (".npy", ".parquet"):
            found[name] = digest([path.read_bytes()])
        elif path.suffix == ".jsonl" and "dids" in name and "cache" not in name:
            found[name] = [{k: v for k, v in line.items() if k != "seconds"} for line in MixtureLog(path).read()]
        elif path.name == "report.html" and "cache" not in name:
            found[name] = path.read_text().rstrip().endswith("</html>")
    return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> list[str]:
    """Names of what is not the same."""
    return [name for name in sorted(found.keys() | expected.keys()) if found.get(name) != expected.get(name)]
