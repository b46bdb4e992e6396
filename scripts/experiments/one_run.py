"""One run, in a process of its own: the host's `run_exp`, then the scores of what it left."""

import contextlib
import io
import json
import os
import resource
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

import torch

from llamafactory_dids.artifacts.domain_map import load_map, save_map
from scripts.experiments import maps, scores


def train_and_score(tasks: Sequence[str], unseen: Sequence[str], values: dict[str, Any], log: Path) -> dict[str, Any]:
    """Run it with all its output in `log`; the losses and accuracies of the trained model, and what it cost."""
    begun = time.monotonic()
    with _all_output_in(log) as stream, contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
        from llamafactory.train.tuner import run_exp

        run_exp(args=values)
        result = scores.read_result(values, tasks, unseen)
    return result | {"seconds": round(time.monotonic() - begun, 1)}


@contextlib.contextmanager
def _all_output_in(log: Path) -> Iterator[TextIO]:
    """This process's, of one thread, libraries' included."""
    log.parent.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    with open(log, "w", encoding="utf-8") as stream:
        for number in (1, 2):
            os.dup2(stream.fileno(), number)
        yield stream


def cluster(values: dict[str, Any], log: Path) -> float:
    """Make the domains of a run alone; CPU seconds."""
    make_domains(values, log)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return round(used.ru_utime + used.ru_stime, 1)


def make_domains(values: dict[str, Any], log: Path) -> Path:
    """The folder of a run's domains, made as `llamafactory-dids cluster` makes them, with all its output in `log`."""
    shown = io.StringIO()
    with _all_output_in(log) as stream:
        from llamafactory_dids.integration.commands.cli import main

        file = log.with_suffix(".yaml")
        file.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
        sys.argv = ["llamafactory-dids", "cluster", str(file)]
        with contextlib.redirect_stdout(shown):
            main([*sys.argv[1:], "--json"])
        stream.write(shown.getvalue())
    return Path(json.loads(shown.getvalue())["path"])


def spoil(kind: str, values: dict[str, Any], log: Path) -> None:
    """Leave beside `log` a map of a run's domains, spoilt with its seed."""
    domain_map = load_map(make_domains(values, log))
    save_map(maps.KINDS[kind](domain_map, values["dids_seed"]), log.with_suffix(""))
