"""The results file: lines of JSON that are only ever added, and what they say together.

A line is of a seed and a checkpoint. It has a truth, or some estimates, and how it was made; a line that was cut off is
passed over. Lines of runs side by side may come in any order.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from llamafactory_dids.errors import DidsError, refuse

Floats = NDArray[np.float64]
Key = tuple[int, int]  # seed and step


@dataclass
class Checkpoint:
    """What is known of a seed at a step: the truth of R orders, held-out losses, estimates by name."""

    domains: list[str]
    tasks: list[str]
    truth_RDT: Floats
    losses_T: Floats
    estimates: dict[str, Floats] = field(default_factory=dict)


def read(path: Path) -> list[dict[str, Any]]:
    """The whole lines of the file; none where there is no file."""
    found = []
    for text in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(text))
        except json.JSONDecodeError:
            continue
    return found


def checkpoints(lines: list[dict[str, Any]]) -> dict[Key, Checkpoint]:
    """What the lines say together, by seed and step; estimates without a truth are left out."""
    found: dict[Key, Checkpoint] = {}
    for line in sorted((line for line in lines if "truth" in line), key=key_of):
        values = (np.array(line["truth"]), np.array(line["losses"]))
        found[key_of(line)] = Checkpoint(line["domains"], line["tasks"], *values)
    for line in lines:
        if "estimates" in line and key_of(line) in found:
            found[key_of(line)].estimates |= {name: np.array(x) for name, x in line["estimates"].items()}
    return found


def key_of(line: Mapping[str, Any]) -> Key:
    """Seed and step."""
    return line["seed"], line["step"]


def check_config(path: Path, lines: list[dict[str, Any]], config: Mapping[str, Any]) -> None:
    """Raise DidsError where the file is of another configuration: what is in one file is averaged."""
    for line in lines:
        for key, value in config.items():
            if (known := line["config"].get(key)) != value:
                raise refuse(f"--{key.replace('_', '-')}", value, f"{known!r}, as {path} has it, or another file")


def check_same_run(path: Path, key: Key, known_T: Floats, losses_T: Floats) -> None:
    """Raise DidsError where a run is not the one whose truth is kept, as on another machine."""
    if not np.allclose(known_T, losses_T, atol=1e-3):
        worst = int(np.abs(known_T - losses_T).argmax())
        here, there = losses_T[worst], known_T[worst]
        raise DidsError(
            f"{path}: seed {key[0]}, step {key[1]}: got a loss of {here:.4f}, allowed: {there:.4f}, as where its truth "
            "was made (the same machine and versions), or another file"
        )


def add(path: Path, line: Mapping[str, Any]) -> None:
    """Put a line at the end, in one write; one that was cut off before it is ended first."""
    path.parent.mkdir(parents=True, exist_ok=True)
    cut = path.exists() and path.stat().st_size > 0 and not path.read_bytes().endswith(b"\n")
    with open(path, "ab", buffering=0) as stream:
        stream.write((b"\n" if cut else b"") + json.dumps(line, default=_plain).encode() + b"\n")


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return np.vectorize(lambda x: float(f"{x:.6g}"), otypes=[float])(value).tolist()
    raise TypeError(f"no JSON for {type(value).__name__}")
