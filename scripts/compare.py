"""Run each strategy from its own file on the same data, model and budget, over seeds, and make the table of the docs.

    python scripts/compare.py --base quickstart --seeds 3 --jobs 2     # may be broken off: what is done is skipped
    python scripts/compare.py --base real --seeds 3 --jobs 2 --data ../shared/data
    python scripts/compare.py --base quickstart --seeds 3 --only dids_gc --encoder path/to/all-MiniLM-L6-v2
    python scripts/compare.py --table                                  # docs/strategies.md from docs/results alone

A run is `llamafactory-cli train examples/yaml/strategies/NAME.yaml` with the keys of its base after it. Each seed has a
model and a domain map of its own, made first and shared by the strategies; those that cluster sentence embeddings have
another map, and are left out unless `--encoder` gives the folder of their model. Times are CPU seconds of the whole
process, start and evaluation included, with one thread: they do not depend on what else the machine does.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from scripts.compare_table import RESULTS, STRATEGIES, read_runs, write_tables  # noqa: E402

FILES = ROOT / "examples" / "yaml" / "strategies"
AFTER = {"static": "dids"}  # takes over the mixture of that run
SEMANTIC = ("dids_gc",)  # cluster what a sentence encoder makes of the samples
QUICKSTART = {"max_steps": 160}
SOURCES = "general_alpaca_en,math_gsm8k,code_alpaca,science_mcq,medical_medquad,finance_twitter"
REAL = {
    "dataset": SOURCES,
    "max_samples": 600,
    "cutoff_len": 128,
    "dids_tasks": "gsm8k_val,arc_challenge_val,pubmedqa_val",
    "dids_task_samples": 40,
    "dids_num_domains": 18,
    "dids_update_samples": 160,
    "per_device_train_batch_size": 16,
    "max_steps": 100,
    "learning_rate": 1e-3,
    "eval_dataset": "gsm8k_test,arc_challenge_test,pubmedqa_test",
    "per_device_eval_batch_size": 16,
}


class Base:
    """Data, model and keys of one comparison, below `folder`; `encoder` is the model of those that cluster texts."""

    def __init__(self, name: str, folder: Path, data: Path, encoder: Path | None = None) -> None:
        self.name = name
        self.folder = folder
        self.encoder = encoder
        self.data = data if name == "real" else folder / "data"
        self.keys = REAL if name == "real" else QUICKSTART

    def of_seed(self, seed: int) -> Path:
        return self.folder / str(seed)

    def overrides(self, strategy: str, seed: int) -> dict[str, Any]:
        """The keys after the file's name: those of the base, the seed's model, and where the run leaves its files."""
        here = self.of_seed(seed)
        keys: dict[str, Any] = {"dataset_dir": self.data, **self.keys, "seed": seed}
        keys |= {"model_name_or_path": here / "model", "dids_cache_dir": here / "cache", "output_dir": here / strategy}
        if strategy in AFTER:
            keys["dids_probs"] = here / AFTER[strategy] / "dids" / "mixture.jsonl"
        if strategy in SEMANTIC:  # embeddings, unlike gradients, are the same for each seed
            keys |= {"dids_semantic_model": self.encoder, "dids_cache_dir": self.folder / "cache"}
        return keys

    def prepare(self, seed: int, strategies: Iterable[str]) -> None:
        """The seed's data, model and the domain maps that these strategies share; what is there stays."""
        if self.name == "quickstart":
            call([sys.executable, "scripts/quickstart/generate.py", "--output", self.data], self.folder / "data.log")
        model = self.of_seed(seed) / "model"
        if not (model / "config.json").exists():
            real = ["--datasets", SOURCES, "--vocab-size", 2000, "--max-length", 128] if self.name == "real" else []
            build = [sys.executable, "scripts/quickstart/build_model.py", "--data", self.data, "--output", model]
            call([*build, "--seed", seed, *real], self.of_seed(seed) / "model.log")
        for strategy in dict.fromkeys(name if name in SEMANTIC else "dids" for name in strategies):
            made = self.of_seed(seed) / f"domains_{strategy}.json"
            if not made.exists():
                words = [f"{key}={value}" for key, value in self.overrides(strategy, seed).items()]
                command = ["llamafactory-dids", "cluster", FILES / f"{strategy}.yaml", *words]
                _, cpu = call(command, made.with_suffix(".log"))
                made.write_text(json.dumps({"cpu_seconds": round(cpu, 1)}))


def call(command: list[Any], log: Path) -> tuple[float, float]:
    """Run a command, one thread, no network; (wall seconds, CPU seconds of it and its children)."""
    log.parent.mkdir(parents=True, exist_ok=True)
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    environment = {
        **os.environ,
        "PATH": path,
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
        "HF_HUB_OFFLINE": "1",
    }
    start = time.monotonic()
    with open(log, "w", encoding="utf-8") as stream:
        process = subprocess.Popen(
            [str(word) for word in command], stdout=stream, stderr=stream, cwd=ROOT, env=environment
        )
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode != 0:
        raise SystemExit(f"compare: {' '.join(map(str, command[:4]))} failed; all of its output: {log}")
    return time.monotonic() - start, usage.ru_utime + usage.ru_stime


def run(base: Base, strategy: str, seed: int) -> None:
    """One training, unless the same one has ended before."""
    file, keys = FILES / f"{strategy}.yaml", base.overrides(strategy, seed)
    words = [f"{key}={value}" for key, value in keys.items()]
    digest = hashlib.blake2b((file.read_text() + "\n".join(words)).encode(), digest_size=8).hexdigest()
    marker = base.of_seed(seed) / f"{strategy}.json"
    if marker.exists() and json.loads(marker.read_text())["digest"] == digest:
        return
    wall, cpu = call(["llamafactory-cli", "train", file, *words], marker.with_suffix(".log"))
    result = read_result(base, strategy, seed) | {"cpu_seconds": round(cpu, 1), "wall_seconds": round(wall, 1)}
    marker.write_text(json.dumps({"digest": digest, "result": result}))
    losses = ", ".join(f"{task} {loss:.3f}" for task, loss in result["losses"].items())
    print(f"{base.name} seed {seed} {strategy}: {losses}; {cpu:.0f} s of CPU", flush=True)


def read_result(base: Base, strategy: str, seed: int) -> dict[str, Any]:
    """What a run left: the held-out loss of each task, the samples trained on, the share that each source got."""
    folder = base.of_seed(seed) / strategy
    metrics = json.loads((folder / "all_results.json").read_text())
    ends = ("eval_", "_test_loss")
    names = [name for name in metrics if name.startswith(ends[0]) and name.endswith(ends[1])]
    losses = {name.removeprefix(ends[0]).removeprefix("task_").removesuffix(ends[1]): metrics[name] for name in names}
    runs = sorted((folder / "dids" / "proxy_runs").glob("*.jsonl"))
    return {
        "base": base.name,
        "strategy": strategy,
        "seed": seed,
        "losses": {task: round(loss, 4) for task, loss in sorted(losses.items())},
        "samples": round(metrics["train_runtime"] * metrics["train_samples_per_second"]),
        "proxy_samples": sum(json.loads(path.read_text().splitlines()[-1])["samples_seen"] for path in runs),
        "shares": {source: round(share, 4) for source, share in source_shares(folder / "dids").items()},
    }


def source_shares(folder: Path) -> dict[str, float]:
    """The part of the samples drawn, up to the last update, that each source had."""
    lines = [json.loads(line) for line in (folder / "mixture.jsonl").read_text().splitlines()]
    domains = json.loads((folder / "domains.json").read_text())["domains"]
    drawn = lines[-1]["samples_drawn"] if len(lines) > 1 else lines[0]["probabilities"]
    total, shares = sum(drawn.values()), dict.fromkeys(sorted({s for d in domains for s in d["sources"]}), 0.0)
    for domain in domains:
        for source, count in domain["sources"].items():
            shares[source] += drawn[domain["name"]] / total * count / domain["size"]
    return shares


def collect(base: Base) -> None:
    """All results of a base into its file, a line a run; those that it has of other runs stay."""
    path = RESULTS / f"{base.name}.jsonl"
    runs = read_runs(path) if path.exists() else {}
    for marker in base.folder.glob("*/*.json"):
        if "result" in (entry := json.loads(marker.read_text())):
            result = entry["result"]
            runs.setdefault(result["strategy"], {})[result["seed"]] = result
    found = [runs[strategy][seed] for strategy in STRATEGIES if strategy in runs for seed in sorted(runs[strategy])]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(result) + "\n" for result in found))


def chosen(only: str | None, encoder: Path | None) -> list[str]:
    """The strategies to run: those that are named, or all that there is a model for."""
    if only is None:
        return [name for name in STRATEGIES if encoder is not None or name not in SEMANTIC]
    wanted = only.split(",")
    for name in wanted:
        if name not in STRATEGIES:
            raise SystemExit(f"--only: got {name!r}, allowed: {', '.join(STRATEGIES)}")
        if name in SEMANTIC and encoder is None:
            raise SystemExit(f"--encoder: got none, allowed with {name}: the folder of a sentence-transformers model")
    return wanted


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the strategies.")
    parser.add_argument("--base", choices=("quickstart", "real"))
    parser.add_argument("--seeds", type=int, default=3, help="seeds 1 to this")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the data folder of --base real")
    parser.add_argument("--output", type=Path, default=Path("saves/compare"), help="where runs leave their files")
    parser.add_argument("--only", default=None, help="strategies, comma-separated")
    parser.add_argument("--encoder", type=Path, default=None, help=f"folder of the model of {', '.join(SEMANTIC)}")
    parser.add_argument("--table", action="store_true", help="only rebuild the tables")
    arguments = parser.parse_args()
    if not arguments.table:
        if arguments.base is None:
            parser.error("--base: got none, allowed: quickstart, real")
        folder = arguments.output / arguments.base
        base = Base(arguments.base, folder, arguments.data, arguments.encoder)
        wanted, seeds = chosen(arguments.only, arguments.encoder), range(1, arguments.seeds + 1)
        base.prepare(seeds[0], wanted)  # and with it what the seeds share
        with ThreadPoolExecutor(arguments.jobs) as pool:
            list(pool.map(lambda seed: base.prepare(seed, wanted), seeds[1:]))
            for turn in ([s for s in wanted if s not in AFTER], [s for s in wanted if s in AFTER]):
                list(pool.map(lambda task: run(base, *task), [(s, seed) for seed in seeds for s in turn]))
        collect(base)
    write_tables()


if __name__ == "__main__":
    main()
