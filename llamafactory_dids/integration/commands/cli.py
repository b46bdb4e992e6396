"""The `llamafactory-dids` command: train, cluster, explain, report, inspect, doctor."""

import argparse
import contextlib
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ... import __version__
from ...artifacts.domain_map import load_map
from ...artifacts.mixture_log import MixtureLog
from ...errors import DidsError, refuse
from ..errors import DEBUG, one_line
from .listing import show_domains

YAML = "FILE.yaml [KEY=VALUE ...]"
EXAMPLES = """examples:
  llamafactory-dids explain my.yaml                      what the run would do and cost
  llamafactory-cli train my.yaml                         train it
  llamafactory-dids inspect saves/dids                   its domains
  llamafactory-dids report saves/dids saves/baseline     did it help?"""


def main(words: Sequence[str] | None = None) -> None:
    """Run a command, or print the help if there is none. An error is one line on stderr and exit status 1."""
    parser = _parser()
    if not (sys.argv[1:] if words is None else words):
        parser.print_help()
        return
    arguments, overrides = parser.parse_known_args(words)
    if overrides and not hasattr(arguments, "yaml"):
        raise SystemExit(f"error: unknown argument {overrides[0]!r}")
    try:
        arguments.run(arguments, overrides)
        sys.stdout.flush()
    except BrokenPipeError:  # `… | head` has closed the pipe; the rest goes nowhere, so that the exit does not fail
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except DidsError as error:
        if os.environ.get(DEBUG) == "1":
            raise
        raise SystemExit(f"error: {one_line(error)}") from None


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="llamafactory-dids",
        description="Decides while a model trains which data it sees next: a plugin of LLaMA-Factory.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"llamafactory-dids {__version__}")
    commands = parser.add_subparsers(required=True, metavar="command", title="commands")

    def add(name: str, run: Any, usage: str, text: str) -> argparse.ArgumentParser:
        usage = f"llamafactory-dids {name} {usage}"
        command = commands.add_parser(name, usage=usage, help=text, description=text)
        command.set_defaults(run=run)
        return command

    train = add("train", _train, YAML, "Train, as `llamafactory-cli train` does.")
    cluster = add("cluster", _cluster, f"{YAML} [--json]", "Make the domains of a YAML file, without training.")
    explain = add(
        "explain",
        _explain,
        f"{YAML} [--processes N] [--json]",
        "Say what a run would do, and about what it would cost. No model is loaded.",
    )
    for command in (train, cluster, explain):
        command.add_argument("yaml", help="the YAML or JSON file of a training; key=value after it overrides a key")
    explain.epilog = "With - as the FILE it answers questions of standard input, a JSON object a line."
    explain.add_argument("--processes", type=int, help="as if started on so many; default: one for each GPU here")
    inspect = add("inspect", _inspect, "RUN [--limit N] [--json]", "List a run's domains, the largest share first.")
    inspect.add_argument("map", type=Path, metavar="RUN", help="a run's output folder, or the folder of a domain map")
    inspect.add_argument("--limit", type=int, help="list so many of them alone")
    report = add(
        "report",
        _report,
        "RUN [RUN ...] [--output FILE] [--lang LANG] [--json]",
        "Write a run's report; or compare several runs.",
    )
    report.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="a run's output folder, or its dids/ folder")
    report.add_argument("--output", type=Path, help="default: report.html in the run, or comparison.html here")
    report.add_argument("--lang", default="en", help="en or zh")
    doctor = add("doctor", _doctor, "[--json]", "Say what is wrong with the installation, and what mends it.")
    for command in (cluster, explain, report, inspect, doctor):
        command.add_argument("--json", action="store_true", help="print JSON in place of text")
    return parser


def _activate(arguments: argparse.Namespace, overrides: list[str]) -> None:
    import llamafactory_dids_activate

    _check_file(Path(arguments.yaml))
    llamafactory_dids_activate.activate()
    sys.argv = ["llamafactory-cli", "train", arguments.yaml, *overrides]


def _check_file(path: Path) -> None:
    """Raise DidsError for what LLaMA-Factory cannot read as keys with values."""
    import yaml

    if not path.is_file():
        raise DidsError(f"{path}: no such file; allowed: a YAML or JSON file")
    try:
        keys = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError) as error:
        raise DidsError(f"{path}: not readable as YAML ({one_line(error)})") from None
    if not isinstance(keys, dict):
        raise DidsError(f"{path}: holds no keys with values; allowed: a YAML or JSON file as examples/ has them")


def _train(arguments: argparse.Namespace, overrides: list[str]) -> None:
    by_itself = "llamafactory_dids_activate" in sys.modules and os.environ.get("LLAMAFACTORY_DIDS") != "0"
    _activate(arguments, overrides)
    if "LOCAL_RANK" in os.environ:  # torchrun has started this process, so there is nothing to launch
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

    with contextlib.redirect_stdout(sys.stderr):  # the host prints and logs to stderr, and stdout gets the map alone
        domain_map, folder = make_domains()
    ranks.end_process_group()
    if int(os.environ.get("RANK", 0)) == 0:
        show_domains(domain_map, folder, arguments.json)


def _explain(arguments: argparse.Namespace, overrides: list[str]) -> None:
    if arguments.processes is not None and arguments.processes < 1:
        raise refuse("--processes", arguments.processes, "an integer >= 1")
    from .explaining import answer, explained

    if arguments.yaml == "-":
        import llamafactory_dids_activate

        llamafactory_dids_activate.activate()
        return answer(sys.stdin, sys.stdout)
    _activate(arguments, overrides)
    sys.argv.pop(1)
    found = explained(arguments.processes)
    from .explanation import in_words  # not at the top: it imports the host

    print(json.dumps(found.as_dict(), ensure_ascii=False) if arguments.json else in_words(found))


def _inspect(arguments: argparse.Namespace, _: list[str]) -> None:
    path = arguments.map
    if not (path / "domains.json").exists() and (path / "dids" / "domains.json").exists():
        path = path / "dids"  # a run's output folder
    if path.is_file() and path.suffix not in (".json", ".parquet"):
        raise refuse("MAP", str(path), "the folder of a run or of a domain map")
    if arguments.limit is not None and arguments.limit < 1:
        raise refuse("--limit", arguments.limit, "an integer >= 1")
    log = MixtureLog((path if path.is_dir() else path.parent) / "mixture.jsonl")
    shares = log.record().last() if log.read() else {}  # a map has no log, and a run that just starts no line
    show_domains(load_map(path), path, arguments.json, shares, arguments.limit)


def _report(arguments: argparse.Namespace, _: list[str]) -> None:
    from ...report.html import find_run, write_comparison, write_report

    folders = [find_run(path) for path in arguments.runs]
    if len(folders) == 1:
        path, found = write_report(folders[0], arguments.output, arguments.lang), {}
    else:
        output = arguments.output or Path("comparison.html")
        path, comparison = write_comparison(folders, output, arguments.lang)
        found = comparison.as_dict()
    if arguments.json:
        print(json.dumps({"path": str(path), **found}, ensure_ascii=False))
    else:
        print(path, *filter(None, [found.get("refused")]), *found.get("verdict", []), sep="\n")


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
