"""`run.json`: when, where, by which command and from which code a run was made."""

import os
import platform
import re
import shlex
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from .files import read_json, write_json

FILE = "run.json"
_SECRET = re.compile(r"token$|key$|password|secret", re.IGNORECASE)
_PATIENCE = 5.0  # seconds that git may take


def save_about(folder: Path, found: dict[str, Any], resumed: bool) -> None:
    """Write `run.json`. A resumed run keeps the start time of the file that is there."""
    path = folder / FILE
    started = read_json(path).get("started") if resumed and path.exists() else None
    write_json(path, {"started": started or f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC", **found})


def command(arguments: Sequence[str]) -> str:
    """The command line, quoted for a shell. The program comes without its folder, and `***` replaces secrets."""
    words, hides_next = [Path(arguments[0]).name], False
    for word in arguments[1:]:
        key, equals, _ = word.partition("=")
        secret = bool(_SECRET.search(key))
        words.append("***" if hides_next else f"{key}=***" if secret and equals else word)
        hides_next = secret and not equals and key.startswith("-")
    return shlex.join(words)


def hardware(devices: list[str]) -> str:
    """The accelerators by count and name; without any, the number and name of the CPUs that this process may use."""
    if devices:
        kinds = {name: devices.count(name) for name in devices}
        return ", ".join(f"{count} × {name}" for name, count in kinds.items())
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} × CPU ({_processor()})"


def commits(package: Path) -> dict[str, str]:
    """The commit of the package's checkout and of the working directory, each left out if it is no checkout.

    A `+` after a commit says that tracked files have changed since.
    """
    found = {"llamafactory-dids": _commit(package), "working directory": _commit(Path.cwd())}
    return {name: commit for name, commit in found.items() if commit}


def _commit(folder: Path) -> str:
    known = _git(folder, "rev-parse", "--short=12", "HEAD")
    return known + "+" * bool(known and _git(folder, "status", "--porcelain", "--untracked-files=no"))


def _git(folder: Path, *words: str) -> str:
    try:
        ran = subprocess.run(["git", "-C", str(folder), *words], capture_output=True, text=True, timeout=_PATIENCE)
    except (OSError, subprocess.SubprocessError):
        return ""
    return ran.stdout.strip() if ran.returncode == 0 else ""


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
