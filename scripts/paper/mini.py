"""Runs of the mini preset: the paper's comparisons with a small Llama from scratch, on real data, on a CPU.

    python scripts/paper/mini.py --runs dids,proportional,dga --seeds 5 --jobs 2    # what is done is skipped
    python scripts/paper/mini.py --list

A run is what `llamafactory-cli train` does with mini.yaml, the run's keys of runs.yaml and the seed's model; each goes
in a process of its own, forked from one that has everything imported. Each seed has first weights, an order of samples
and a sampling of its own; the pool of data, the domains and the observed samples are the same. A line a seed is left in
docs/results/mini/RUN.jsonl. Seconds are of CPU time, one thread.
"""

import argparse
import hashlib
import json
import multiprocessing
import os
import sys
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.paper import mini_data, mini_run, results  # noqa: E402
from scripts.paper.mini_data import IRRELEVANT, PROXY_SEED, TASKS, UNSEEN  # noqa: E402

HERE = Path(__file__).resolve().parent
RESULTS = ROOT / "docs" / "results"
FOLDER = ROOT / "saves" / "mini"
DATA = ROOT.parent / "shared" / "data"
SETUP = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}


class Preset:
    """Where the runs of one data folder live, below `folder`, and the arguments of each."""

    def __init__(self, folder: Path, data: Path) -> None:
        self.folder = folder
        self.source = data
        self.data = folder / "data"
        self.runs: dict[str, dict[str, Any]] = yaml.safe_load((HERE / "runs.yaml").read_text(encoding="utf-8"))
        self.base: dict[str, Any] = yaml.safe_load((HERE / "mini.yaml").read_text(encoding="utf-8"))

    def arguments(self, name: str, seed: int) -> dict[str, Any]:
        """All keys of a run, for the host."""
        run = dict(self.runs[name])
        updates, budget = run.pop("updates", None), run.pop("budget", 1)
        tasks, share, other = run.pop("tasks", TASKS), run.pop("mix_in", 0), run.pop("of", None)
        values = self.base | self._places(name, seed) | run
        values["max_steps"] = round(budget * self.base["max_steps"])
        if updates:
            samples = values["max_steps"] * self.base["per_device_train_batch_size"]
            values["dids_update_samples"] = samples // updates
        values["dids_tasks"] = ",".join(f"{task}_val" for task in tasks)
        if share:
            values |= {"dids_mix_in": ",".join(IRRELEVANT), "dids_mix_in_share": share}
        if other:
            values["dids_probs"] = str(self.output(other, seed) / "dids" / "mixture.jsonl")
        values["tokenized_path"] = str(self.folder / "tokens" / (f"mix_in_{share}" if share else "plain"))
        return values

    def _places(self, name: str, seed: int) -> dict[str, Any]:
        return {
            "model_name_or_path": str(self.folder / "models" / str(seed)),
            "dataset_dir": str(self.data),
            "dataset": ",".join(mini_data.sources_of_preset(self.data)),
            "eval_dataset": ",".join(f"{task}_test" for task in (*TASKS, *UNSEEN)),
            "dids_proxy_model": str(self.output("proxy", PROXY_SEED)),
            "dids_cache_dir": str(self.folder / "cache"),
            "dids_seed": seed,
            "seed": seed,
            "output_dir": str(self.output(name, seed)),
        }

    def output(self, name: str, seed: int) -> Path:
        """What a run leaves."""
        return self.folder / "runs" / str(seed) / name

    def prepare(self, seeds: Sequence[int]) -> None:
        """The data, each seed's model, and the proxy whose gradients are clustered; what is there stays."""
        mini_data.prepare_data(self.source, self.data)
        for seed in (PROXY_SEED, *seeds):
            mini_data.prepare_model(self.data, self.folder / "models" / str(seed), seed)
        proxy = self.output("proxy", PROXY_SEED)
        if not (proxy / "all_results.json").exists():
            values = self.arguments("proportional", PROXY_SEED) | {"output_dir": str(proxy), "dids_domains": "source"}
            _in_a_process(mini_run.train_and_score, values, proxy.with_suffix(".log"))

    def cluster(self, seed: int) -> float:
        """CPU seconds that the domains of a seed took, made first, so that no run's time has them."""
        note = self.folder / "clustering" / f"{seed}.json"
        if not note.exists():
            seconds = _in_a_process(mini_run.cluster, self.arguments("dids", seed), note.with_suffix(".log"))
            note.write_text(json.dumps({"cpu_seconds": seconds}))
        return float(json.loads(note.read_text())["cpu_seconds"])

    def run(self, name: str, seed: int) -> None:
        """One run, unless the same one has ended before."""
        values = self.arguments(name, seed)
        digest = _digest(values, self.folder)
        done = read_results(name)
        if seed in done and done[seed]["digest"] == digest:
            return
        if "of" in self.runs[name]:
            self.run(self.runs[name]["of"], seed)
        clustering = self.cluster(seed)
        result = _in_a_process(mini_run.train_and_score, values, self.output(name, seed).with_suffix(".log"))
        result["cost"]["clustering_seconds"] = clustering
        _add({"run": name, "seed": seed, "digest": digest, **result})
        mean = sum(result["losses"].values()) / len(result["losses"])
        print(f"seed {seed} {name}: mean loss {mean:.4f}, {result['cpu_seconds']:.0f} s of CPU", flush=True)


def _digest(values: dict[str, Any], folder: Path) -> str:
    """Of all keys, wherever the runs' folder is."""
    text = json.dumps(values, sort_keys=True).replace(str(folder), "")
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _in_a_process(function: Any, values: dict[str, Any], log: Path) -> Any:
    """What the function returns, called in a process forked from one that has everything imported."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["llamafactory.train.tuner", "scripts.paper.mini_run"])
    log.parent.mkdir(parents=True, exist_ok=True)
    with context.Pool(1) as pool:
        try:
            return pool.apply(function, (values, log))
        except Exception as error:
            raise SystemExit(f"mini: {values['output_dir']}: {error}; all of its output: {log}") from error


# --- results -----------------------------------------------------------------------------------------------


def read_results(name: str) -> dict[int, dict[str, Any]]:
    """The results of a run that are there, by seed."""
    return results.read("mini", name, "", RESULTS)


def _add(result: dict[str, Any]) -> None:
    """Put a result into its run's file, in the place of an older one of the same seed."""
    with _writing:
        results.add(results.path_of("mini", result["run"], "", RESULTS), result)


_writing = threading.Lock()


def state(names: Sequence[str], seeds: Sequence[int]) -> dict[str, int]:
    """How many of the seeds each run has a result of."""
    return {name: len(set(seeds) & set(read_results(name))) for name in names}


def execute(names: Sequence[str], seeds: Sequence[int], jobs: int, *, folder: Path = FOLDER, data: Path = DATA) -> None:
    """Run what is not done, `jobs` seeds side by side."""
    os.environ.update(SETUP)
    preset = Preset(folder.resolve(), data.resolve())
    if unknown := [name for name in names if name not in preset.runs]:
        raise SystemExit(f"--runs: got {unknown[0]!r}, allowed: {', '.join(preset.runs)}")
    preset.prepare(seeds)

    def all_of(seed: int) -> None:
        for name in names:
            preset.run(name, seed)

    with ThreadPoolExecutor(jobs) as pool:
        list(pool.map(all_of, seeds))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="", help="names of runs.yaml, comma-separated")
    parser.add_argument("--seeds", default="5", help="seeds 1 to this, or a list such as 1,2,")
    parser.add_argument("--jobs", type=int, default=1, help="seeds side by side")
    parser.add_argument("--data", type=Path, default=DATA, help="the data folder")
    parser.add_argument("--output", type=Path, default=FOLDER, help="where runs leave their files")
    parser.add_argument("--list", action="store_true", help="the runs, and how many seeds of each are done")
    options = parser.parse_args()
    words = [word for word in options.seeds.split(",") if word]
    seeds = [int(word) for word in words] if "," in options.seeds else list(range(1, int(words[0]) + 1))
    if options.list:
        for name, count in state(list(yaml.safe_load((HERE / "runs.yaml").read_text())), seeds).items():
            print(f"{name}: {count} of {len(seeds)} seeds")
        return
    execute(options.runs.split(","), seeds, options.jobs, folder=options.output, data=options.data)


if __name__ == "__main__":
    main()
