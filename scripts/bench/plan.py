"""The plan at scale: what a mixture adds to the host's own loading of the data, in seconds and memory.

    python scripts/bench/plan.py --rows 1000000 --threads 1 --clock cpu

The host (`concat`) and ours (`proportional`, with the data sets as domains or a map of so many) load
the same made-up rows, each in a process of its own with an empty cache: reading, aligning, tokenising, and of ours
keys, domains and the plan. "Seconds added" are those of one process outside of the host's own functions; the parts that
look at all rows at once are timed apart too.
"""

import argparse
import dataclasses
import functools
import importlib
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from transformers import LlamaConfig

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llamafactory_dids.artifacts.domain_map import DomainMap, load_map, save_map  # noqa: E402
from llamafactory_dids.artifacts.samples import samples_digest  # noqa: E402
from scripts.bench import made_up, timing  # noqa: E402

CANDIDATES = ("host", "by source", "by a map")
WORDS = 2000
HOST = "the host within"
NUM_DOMAINS = 1152
PARTS = {  # what is timed apart: a module of the package, and an attribute of it
    "keys of the examples": ("integration.data.loading", "tagged"),
    "a map of the data sets": ("integration.domains.making", "domains_by_source"),
    "reading a map": ("integration.domains.making", "load_map"),
    "a domain for each row": ("artifacts.domain_map", "DomainMap.domains_of"),
}


def prepare(folder: Path, num_rows: int, num_sources: int, num_tokens: int) -> None:
    """A tokenizer of whole words, a tiny model, and data sets of made-up words."""
    words = made_up.words(WORDS)
    sizes = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1}
    made_up.save_model(folder, WORDS, LlamaConfig(vocab_size=WORDS + len(made_up.MARKS), **sizes))
    rng, info = random.Random(0), {}
    (folder / "data").mkdir()
    for source in range(num_sources):
        name = f"source_{source:02d}"
        info[name] = {"file_name": f"{name}.jsonl"}
        with open(folder / "data" / f"{name}.jsonl", "w", encoding="utf-8") as stream:
            for row in range(source, num_rows, num_sources):
                answer = " ".join(rng.choices(words, k=num_tokens))
                stream.write(json.dumps({"instruction": f"w1 {row}", "input": "", "output": answer}) + "\n")
    (folder / "data" / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")


def keys_of(candidate: str, folder: Path) -> dict[str, Any]:
    """The training arguments of a candidate."""
    info = json.loads((folder / "data" / "dataset_info.json").read_text(encoding="utf-8"))
    own = {"cutoff_len": 2048, "cache_dir": str(folder / "hub"), "use_cpu": True}
    keys = made_up.keys(folder, candidate, list(info)) | own
    if candidate == "host":
        return keys | {"mix_strategy": "concat"}
    domains = "source" if candidate == "by source" else str(folder / "map")
    return keys | {"mix_strategy": "proportional", "dids_domains": domains}


def load(candidate: str, folder: Path, clock: str) -> dict[str, float]:
    """Load the data in this process as a workflow does; seconds, the most MiB held, and seconds of the parts."""
    import llamafactory_dids_activate

    llamafactory_dids_activate.activate()
    from llamafactory.data import get_template_and_fix_tokenizer
    from llamafactory.model import load_tokenizer
    from llamafactory.train import tuner
    from llamafactory.train.sft import workflow

    from scripts.bench.overhead_child import Stopwatch

    stopwatch = Stopwatch(clock)
    for part, (module, attribute) in PARTS.items():
        *owners, name = attribute.split(".")
        owner = functools.reduce(getattr, owners, importlib.import_module(f"llamafactory_dids.{module}"))
        setattr(owner, name, stopwatch.timing(part, getattr(owner, name)))
    _time_the_host(stopwatch)
    model_args, data_args, training_args, finetuning_args, _ = tuner.get_train_args(keys_of(candidate, folder))
    tokens = load_tokenizer(model_args)
    template = get_template_and_fix_tokenizer(tokens["tokenizer"], data_args)
    before = timing.reset_peak_memory()
    stopwatch.start()
    module = workflow.get_dataset(template, model_args, data_args, training_args, stage=finetuning_args.stage, **tokens)
    found = {**stopwatch.stop(), "MiB": (timing.peak_memory() - before) / 2**20}
    if candidate == "by source":
        save_map(at_random(module["mixing"].domain_map, NUM_DOMAINS), folder / "map")
    return found


def _time_the_host(stopwatch: Any) -> None:
    """Within a plan, what the host does is timed without the parts of ours inside of it."""
    from llamafactory_dids.integration.plan import planning

    make = planning.DataSource

    def source(settings: Any, host: Any, *pipeline: Any, **more: Any) -> Any:
        return make(settings, stopwatch.timing(HOST, host, own=True), *pipeline, **more)

    planning.DataSource = source  # type: ignore[misc,assignment]


def run(candidate: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """`load` in a process of its own with an empty cache."""
    with tempfile.TemporaryDirectory(dir=folder) as cache:
        environment = {**os.environ, "HF_HOME": cache, "HF_DATASETS_CACHE": cache, "PYTHONPATH": str(ROOT)}
        environment |= {"OMP_NUM_THREADS": str(arguments.threads), "HF_HUB_OFFLINE": "1"}
        command = [sys.executable, __file__, "--child", candidate, "--folder", str(folder), "--clock", arguments.clock]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr[-3000:])
    return dict(json.loads(done.stdout.splitlines()[-1]))


def at_random(domain_map: Any, num_domains: int) -> Any:
    """The map's samples, in so many domains at random."""
    domains_N = np.random.default_rng(0).integers(0, num_domains, len(domain_map.keys_N))
    names = tuple(f"domain_{i:04d}" for i in range(num_domains))
    return dataclasses.replace(domain_map, names=names, domains_N=domains_N, typical_texts={}, inputs={})


def parts_of_a_map(num_rows: int, num_domains: int, num_sources: int, clock: str) -> dict[str, float]:
    """Seconds of what is done with a map of so many samples, and the MiB that this holds at most."""
    now, before = timing.clock(clock), timing.reset_peak_memory()
    rng = np.random.default_rng(0)
    keys = [f"{number:032x}" for number in range(num_rows)]
    sources = [f"source_{code:02d}" for code in rng.integers(0, num_sources, num_rows)]
    names = tuple(f"domain_{i:04d}" for i in range(num_domains))
    seconds, mark = {}, [now()]

    def lap(part: str) -> None:
        seconds[part] = now() - mark[0]
        mark[0] = now()

    domain_map = DomainMap(names, keys, sources, rng.integers(0, num_domains, num_rows), {}, {})
    lap("made of lists")
    del keys, sources
    mark[0] = now()
    domain_map.digest()
    lap("digest")
    samples_digest(domain_map.sources_N, domain_map.keys_N)
    lap("digest of the samples")
    with tempfile.TemporaryDirectory() as folder:
        save_map(domain_map, Path(folder))
        lap("written")
        found = load_map(Path(folder))
        lap("read")
    found.domains_of(domain_map.sources_N, domain_map.keys_N)
    lap("a domain for each row")
    found.of_domains(range(num_domains // 2))
    lap("half of the domains")
    return seconds | {"MiB": (timing.peak_memory() - before) / 2**20}


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Each candidate in turns; seconds against the host's, and what the parts of ours took."""
    prepare(folder, arguments.rows, arguments.sources, arguments.tokens)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in CANDIDATES}
    for _ in range(arguments.rounds):
        for name in CANDIDATES:
            runs[name].append(run(name, folder, arguments))
    seconds = {name: [one["seconds"] for one in found] for name, found in runs.items()}
    result: dict[str, Any] = {"loading, against the host": timing.ratios(seconds, "host")}
    for name in CANDIDATES:
        middle = {key: statistics.median(one.get(key, 0.0) for one in runs[name]) for key in runs[name][0]}
        host = statistics.median(one["MiB"] for one in runs["host"])
        added = middle["seconds"] - middle[HOST] if HOST in middle else 0.0
        result[f"{name}:"] = {"": {"seconds added": added, "MiB added": middle["MiB"] - host, **middle}}
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the plan of a run with many samples.")
    timing.add_arguments(parser, rounds=1)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--sources", type=int, default=20)
    parser.add_argument("--tokens", type=int, default=40, help="words of an answer")
    parser.add_argument("--map-only", action="store_true", help="what is done with a map alone, without the host")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        print(json.dumps(load(arguments.child, arguments.folder, arguments.clock)))
        return
    parts = parts_of_a_map(arguments.rows, NUM_DOMAINS, arguments.sources, arguments.clock)
    result: dict[str, Any] = {f"a map of {NUM_DOMAINS:,} domains": {"": parts}}
    if not arguments.map_only:
        with tempfile.TemporaryDirectory() as folder:
            result |= measure(arguments, Path(folder))
    timing.report(f"plan, {arguments.rows:,} rows", result | {"machine": timing.machine(arguments)}, arguments.json)


if __name__ == "__main__":
    main()
