"""The `llamafactory-dids` command: train, cluster, explain, report, inspect, doctor."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...artifacts.domain_map import DomainMap, load_map
from ...artifacts.mixture_log import MixtureLog
from ...errors import DidsError, refuse
from ..errors import DEBUG, one_line


def main(words: Sequence[str] | None = None) -> None:
    """Run a command; an error is one line on stderr and exit status 1."""
    arguments, overrides = _parser().parse_known_args(words)
    if overrides and not hasattr(arguments, "yaml"):
        raise SystemExit(f"error: unknown argument {overrides[0]!r}")
    try:
        arguments.run(arguments, overrides)
        sys.stdout.flush()
    except BrokenPipeError:  # `… | head` has seen enough; what is left goes nowhere, so that the exit does not fail too
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except DidsError as error:
        if os.environ.get(DEBUG) == "1":
            raise
        raise SystemExit(f"error: {one_line(error)}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="llamafactory-dids", description="Data mixing while a model trains.")
    commands = parser.add_subparsers(required=True, metavar="command")

    def add(name: str, run: Any, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    train = add("train", _train, "Train as `llamafactory-cli train` does, with the plugin on.")
    train.add_argument("yaml", help="the host's YAML or JSON file; key=value words after it override it")
    cluster = add("cluster", _cluster, "Make the domain map of a YAML file, without training.")
    cluster.add_argument("yaml", help="the host's YAML or JSON file; key=value words after it override it")
    inspect = add("inspect", _inspect, "Show the domains of a map.")
    inspect.add_argument("map", type=Path, help="a domain map, or a run's folder")
    explain = add("explain", _explain, "Say what a run would do, and about what it would cost; loads no model.")
    explain.add_argument("yaml", help="the host's YAML or JSON file; key=value words after it override it")
    explain.add_argument("--processes", type=int, help="as if started on so many; default: one for each GPU here")
    report = add("report", _report, "Write a run's report.html; compare several runs side by side.")
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's output folder, or its dids/ folder")
    report.add_argument("--output", type=Path, help="default: report.html in the run, or comparison.html here")
    report.add_argument("--lang", default="en", help="en or zh")
    doctor = add("doctor", _doctor, "Check versions, seams, GPU and faiss, and say what to do.")
    for command in (cluster, explain, report, inspect, doctor):
        command.add_argument("--json", action="store_true", help="for a program to read")
    return parser


def _activate(arguments: argparse.Namespace, overrides: list[str]) -> None:
    import llamafactory_dids_activate

    if not Path(arguments.yaml).is_file():
        raise DidsError(f"{arguments.yaml}: no such file; allowed: a YAML or JSON file")
    llamafactory_dids_activate.activate()
    sys.argv = ["llamafactory-cli", "train", arguments.yaml, *overrides]


def _train(arguments: argparse.Namespace, overrides: list[str]) -> None:
    by_itself = "llamafactory_dids_activate" in sys.modules and os.environ.get("LLAMAFACTORY_DIDS") != "0"
    _activate(arguments, overrides)
    if "LOCAL_RANK" in os.environ:  # started by torchrun, so there is nothing left to launch
        sys.argv.pop(1)
        from llamafactory.train.tuner import run_exp

        run_exp()
        return
    from llamafactory.launcher import launch

    if not by_itself and _starts_processes():
        raise DidsError(
            "the processes that LLaMA-Factory would start do not know the plugin (no .pth file, or "
            f"LLAMAFACTORY_DIDS=0); allowed: torchrun --nproc-per-node N -m llamafactory_dids train {arguments.yaml}"
        )
    launch()


def _starts_processes() -> bool:
    """Whether the host's launcher would start torchrun."""
    from llamafactory.extras.misc import get_device_count, is_env_enabled, use_ray

    return bool(is_env_enabled("FORCE_TORCHRUN") or (get_device_count() > 1 and not use_ray()))


def _cluster(arguments: argparse.Namespace, overrides: list[str]) -> None:
    _activate(arguments, overrides)
    sys.argv.pop(1)
    from ...stages import ranks
    from .cluster import make_domains

    with contextlib.redirect_stdout(sys.stderr):  # where the host logs and prints, so that ours is the map alone
        domain_map, folder = make_domains()
    ranks.end_process_group()
    if int(os.environ.get("RANK", 0)) == 0:
        _show(domain_map, folder, arguments.json)


def _explain(arguments: argparse.Namespace, overrides: list[str]) -> None:
    if arguments.processes is not None and arguments.processes < 1:
        raise refuse("--processes", arguments.processes, "an integer >= 1")
    _activate(arguments, overrides)
    sys.argv.pop(1)
    with contextlib.redirect_stdout(sys.stderr):  # where the host logs, from when it is imported
        import llamafactory.train.tuner  # noqa: F401  as in a training: the host's modules, then ours
        from llamafactory.extras.misc import get_device_count

        from .explain import explain
        from .explanation import in_words

        if get_device_count() == 0:  # a run for a cluster is explained on a laptop too, which has no GPU for its bf16
            sys.argv.append("use_cpu=true")
        found = explain(arguments.processes)
    print(json.dumps(found.as_dict(), ensure_ascii=False) if arguments.json else in_words(found))


def _inspect(arguments: argparse.Namespace, _: list[str]) -> None:
    path = arguments.map
    if not (path / "domains.json").exists() and (path / "dids" / "domains.json").exists():
        path = path / "dids"  # a run's output folder
    if path.is_file() and path.suffix not in (".json", ".parquet"):
        raise refuse("MAP", str(path), "the folder of a run or of a domain map")
    log = (path if path.is_dir() else path.parent) / "mixture.jsonl"
    lines = MixtureLog(log).read()
    _show(load_map(path), path, arguments.json, lines[-1]["probabilities"] if lines else {})


def _report(arguments: argparse.Namespace, _: list[str]) -> None:
    from ...report.html import find_run, write_comparison, write_report

    folders = [find_run(path) for path in arguments.runs]
    try:
        if len(folders) == 1:
            path, found = write_report(folders[0], arguments.output, arguments.lang), {}
        else:
            output = arguments.output or Path("comparison.html")
            path, comparison = write_comparison(folders, output, arguments.lang)
            found = comparison.as_dict()
    except OSError as error:
        raise DidsError(f"--output: {error}; allowed: a file in a folder that can be written to") from None
    print(json.dumps({"path": str(path), **found}, ensure_ascii=False) if arguments.json else path)


def _doctor(arguments: argparse.Namespace, _: list[str]) -> None:
    from .doctor import examine

    findings = examine()
    if arguments.json:
        print(json.dumps([finding._asdict() for finding in findings]))
    else:
        for finding in findings:
            print(f"{'ok  ' if finding.ok else 'FAIL'}  {finding.what}: {finding.found}")
            if finding.mend:
                print(f"      → {finding.mend}")
    if not all(finding.ok for finding in findings):
        raise SystemExit(1)


def _show(domain_map: DomainMap, folder: Path, as_json: bool, probabilities: dict[str, float] | None = None) -> None:
    """Print the domains; those of a run with their probability at its last update."""
    domains = domain_map.describe()
    for domain in domains:
        if probabilities:
            domain["probability"] = probabilities.get(domain["name"])
    if as_json:
        print(json.dumps({"path": str(folder), "domains": domains}, ensure_ascii=False))
        return
    print(f"{folder}: {len(domains)} domains, {len(domain_map.keys_N)} samples")
    width = max(len(domain["name"]) for domain in domains)
    for domain in domains:
        sources = ", ".join(f"{name} {count}" for name, count in domain["sources"].items())
        share = "" if domain.get("probability") is None else f"  {domain['probability']:>7.2%}"
        print(f"{domain['name']:<{width}} {domain['size']:>8}{share}  {sources}")
        for text in domain["typical_texts"][:1]:
            print(f"{'':<{width}}           e.g. {text[:100]}")
