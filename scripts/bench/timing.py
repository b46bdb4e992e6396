"""Timing for the benchmarks: candidates in turns within one run, and their ratios round by round.

A machine is never idle and never twice the same, so a figure counts only against a reference that was timed in the
same round. `--clock cpu` counts the process's CPU seconds instead of the wall's: with one thread it hardly depends on
what else the machine does.
"""

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch


def add_arguments(parser: argparse.ArgumentParser, rounds: int) -> None:
    """The options that all benchmarks have."""
    parser.add_argument("--rounds", type=int, default=rounds, help="each candidate is timed once in each")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    parser.add_argument("--json", action="store_true", help="for a program to read")


def clock(name: str) -> Callable[[], float]:
    """What `--clock` names."""
    return time.perf_counter if name == "wall" else time.process_time


def in_turns(candidates: Mapping[str, Callable[[], Any]], rounds: int, clock_name: str) -> dict[str, list[float]]:
    """Seconds of each candidate in each round, after one of each that does not count; who is first changes."""
    now = clock(clock_name)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    names = list(candidates)
    for name in names:
        candidates[name]()
    for turn in range(rounds):
        for name in names[turn % len(names) :] + names[: turn % len(names)]:
            _synchronize()
            start = now()
            candidates[name]()
            _synchronize()
            seconds[name].append(now() - start)
    return seconds


def ratios(seconds: Mapping[str, list[float]], reference: str) -> dict[str, dict[str, float]]:
    """For each candidate its median seconds, and the median, lowest and highest of its ratios to the reference."""
    rows = {}
    for name, values in seconds.items():
        against = [one / other for one, other in zip(values, seconds[reference], strict=True)]
        rows[name] = {
            "seconds": statistics.median(values),
            "ratio": statistics.median(against),
            "lowest": min(against),
            "highest": max(against),
        }
    return rows


def reset_peak_memory() -> int:
    """Forget the highest memory of this process (Linux); the bytes that it holds now."""
    with open("/proc/self/clear_refs", "w", encoding="ascii") as control:
        control.write("5")
    return _status("VmRSS")


def peak_memory() -> int:
    """The most bytes that this process held since `reset_peak_memory`, files that it maps included."""
    return _status("VmHWM")


def _status(key: str) -> int:
    with open("/proc/self/status", encoding="ascii") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key + ":"))


def machine(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the figures were measured on."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "threads": arguments.threads,
        "gpu": gpu,
        "torch": torch.__version__,
        "clock": arguments.clock,
        "load": round(os.getloadavg()[0], 1),
    }


def report(title: str, result: dict[str, Any], as_json: bool) -> None:
    """Print a result: one JSON object, or lines for a person."""
    if as_json:
        print(json.dumps({"benchmark": title, **result}))
        return
    print(title)
    for key, value in result.items():
        rows = value if isinstance(value, dict) else {"": value}
        for name, row in rows.items():
            shown = ", ".join(f"{k} {_short(v)}" for k, v in row.items()) if isinstance(row, dict) else _short(row)
            print(f"  {key}{' ' + name if name else ''}: {shown}")


def _short(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def _synchronize() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _cpu_model() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()
