"""The paper preset: every run as the configurations and commands that make it on 8 GPUs.

    python scripts/experiments/reproduce.py --table 1 --preset paper --dry-run

A run is up to four commands: domains, a map of spoilt ones or the proxy run of an offline strategy, the training, the
scores. DeepSpeed refuses proxy runs, so `doge`, `doremi` and `velocitune` train the proxy as their main model, without
it, and the 8B model takes over that run's mean mixture by `static`. For `velocitune` this is a departure: the paper's
pilot is of full size, and its mixture moves with the 8B model's own losses.
"""

import hashlib
import json
import os
import shlex
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from llamafactory_dids.errors import DidsError
from scripts.experiments import definition, irrelevant, results, runs
from scripts.experiments.definition import TASKS

ROOT = Path(__file__).resolve().parents[2]
BASES = Path(__file__).resolve().parent / "bases.yaml"
FOLDER = Path("saves/paper")
FINANCE = ("finance",)  # what prepare_data.py was given: section 5.5.2 does not name its data
GPUS = 8
CODE = ("mbpp", "humaneval")  # what the model writes is run
OFFLINE = ("doge", "doremi", "velocitune")
OF_THE_RUN = ("dids_preset", "dids_ema_beta", "mix_strategy")


@dataclass(frozen=True)
class Step:
    """One command, and the configuration that it is about (none for the scores)."""

    what: str  # cluster, spoil, proxy run, train, score
    command: tuple[str, ...]
    done: str  # the file that says so
    config: Mapping[str, Any] | None = None
    file: str | None = None  # where the configuration goes
    environment: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Recipe:
    """All that makes one run of one seed."""

    run: str
    base: str
    seed: int
    steps: tuple[Step, ...]
    departures: tuple[str, ...] = ()


class Preset:
    """The runs of the paper's size. `sizes` are the samples of the sources of Tulu 3, for the mixtures of Table 10."""

    def __init__(self, named: Mapping[str, Mapping[str, Any]], folder: Path = FOLDER) -> None:
        self.named = named
        self.folder = folder
        self.bases: dict[str, dict[str, Any]] = yaml.safe_load(BASES.read_text(encoding="utf-8"))
        sources = [row for row in definition.load(definition.FOLDER / "table_04.yaml").rows if "dataset" in row.more]
        self.parts: dict[str, str] = {row.more["dataset"]: row.more["part"] for row in sources}
        self.sizes = {
            row.more["dataset"]: int(row.paper[0] or 0) if row.paper else row.more["samples"] for row in sources
        }

    def base(self, name: str) -> dict[str, Any]:
        """The keys that all runs of a model and data share."""
        entry = self.bases[name]
        values: dict[str, Any] = yaml.safe_load((ROOT / entry["file"]).read_text(encoding="utf-8"))
        values = {key: value for key, value in values.items() if key not in OF_THE_RUN}
        if "data" in entry and entry["data"] != values["dataset_dir"]:
            values |= {"dataset_dir": entry["data"], "dataset": self._sources(entry["data"])}
        return values

    def _sources(self, data: str) -> str:
        """The sources of a prepared folder; those of Tulu 3 are known, others are read, or stand as one until then."""
        if data == "data/tulu3":
            return ",".join(self.sizes)
        path = ROOT / data / "sources.json"
        return ",".join(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else Path(data).name

    def config(self, run: str, base: str, seed: int) -> dict[str, Any]:
        """All keys of the training of a run."""
        values = self.base(base)
        samples = values["per_device_train_batch_size"] * values["gradient_accumulation_steps"] * GPUS
        overrides = self._words(run)
        if run == runs.FULL:
            values = {key: value for key, value in values.items() if not key.startswith("dids_") and key != "max_steps"}
        else:
            values["max_steps"] = round(overrides.pop("budget", 1) * values["max_steps"])
            if updates := overrides.pop("updates", None):
                values["dids_update_samples"] = max(samples, samples * values["max_steps"] // updates)
            values["dids_tasks"] = ",".join(f"{task}_val" for task in overrides.pop("tasks", TASKS))
            if share := overrides.pop("mix_in", 0):
                values["dataset"] = ",".join([values["dataset"], *irrelevant.cut_names(FINANCE, share)])
            if overrides.pop("spoilt", None):
                overrides["dids_domains"] = f"{self.output(run, base, seed)}_domains"
            if overrides.pop("own_proxy", False):
                del values["dids_proxy_model"]
            if other := overrides.pop("of", None):
                overrides["dids_probs"] = str(self.output(other, base, seed) / "dids" / "mixture.jsonl")
        if "dids_probs" in overrides and overrides.get("dids_domains") == "source":
            values["dataset"] = ",".join(self.sizes)  # in the order of the probabilities
        own = {
            "seed": seed,
            "output_dir": str(self.output(run, base, seed)),
            "overwrite_output_dir": False,
        }  # so it resumes
        return {**values, **overrides, **own}

    def _words(self, run: str) -> dict[str, Any]:
        """What the file says of a run, or what its name makes of it."""
        if run == runs.FULL:
            return {"num_train_epochs": 1.0}
        return runs.fixed_mixture(run, self.parts, self.sizes) or runs.resolve(run, self.named)

    def output(self, run: str, base: str, seed: int) -> Path:
        """Where a run leaves its files."""
        return self.folder / base / run / str(seed)

    def recipe(self, run: str, base: str, seed: int, tasks: Sequence[str]) -> Recipe:
        """The commands of a run, in order."""
        if run == runs.UNTRAINED:
            model = self.base(base)["model_name_or_path"]
            return Recipe(run, base, seed, (self._score(model, run, base, seed, tasks),))
        config = self.config(run, base, seed)
        steps, departures = [], []
        if config.get("mix_strategy") in OFFLINE:
            proxy, config = self._handed_over(config)
            steps += [self._cluster(proxy), self._train("proxy run", proxy)]
            departures.append(
                "the proxy is trained by itself, without DeepSpeed; the model takes over its mean mixture"
            )
        elif config.get("mix_strategy") is not None and config.get("dids_domains", "cluster") == "cluster":
            steps.append(self._cluster(config))
        elif spoilt := self._words(run).get("spoilt"):
            clustered = {key: value for key, value in config.items() if key != "dids_domains"}
            steps += [self._cluster(clustered), _spoil(spoilt, clustered, config["dids_domains"])]
        steps += [self._train("train", config), self._score(config["output_dir"], run, base, seed, tasks)]
        return Recipe(run, base, seed, tuple(steps), tuple(departures))

    def _handed_over(self, config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """The run that trains the proxy by a strategy, and the one that trains the model on its mean mixture."""
        output = Path(str(config["output_dir"]))
        proxy = {key: value for key, value in config.items() if key != "deepspeed"}
        proxy["model_name_or_path"] = config["dids_proxy_model"]  # the template stays, and with it the domains
        proxy["output_dir"] = str(output.parent / "proxy" / output.name)
        dropped = ("dids_proxy_share", "dids_similarity", "dids_doremi_target", "dids_eta", "dids_floor")
        model = {key: value for key, value in config.items() if key not in dropped} | {"mix_strategy": "static"}
        model |= {
            "dids_probs": f"{proxy['output_dir']}/dids/mixture.jsonl",
            "dids_domains": f"{proxy['output_dir']}/dids",
        }
        return proxy, model

    def _cluster(self, config: Mapping[str, Any]) -> Step:
        """Domains alone; runs of the same data, proxy and number of domains share them by their cache."""
        keys = {key: value for key, value in config.items() if key.startswith(("dids_", "data", "cutoff", "template"))}
        keys.setdefault("dids_proxy_model", config["model_name_or_path"])
        other = ("dids_tasks", "dids_update_samples", "dids_preset", "dids_init", "dids_probs")
        text = json.dumps({key: value for key, value in keys.items() if key not in other} | {"seed": config["seed"]})
        digest = hashlib.blake2b(text.encode(), digest_size=6).hexdigest()
        file = _file(config)
        words = ("torchrun", "--nproc-per-node", str(GPUS), "-m", "llamafactory_dids", "cluster", file)
        return Step("cluster", words, str(self.folder / "domains" / f"{digest}.done"), config, file)

    def _train(self, what: str, config: Mapping[str, Any]) -> Step:
        words, file = ("llamafactory-cli", "train", _file(config)), _file(config)
        done = f"{config['output_dir']}/all_results.json"
        return Step(what, words, done, config, file, {"FORCE_TORCHRUN": "1", "NPROC_PER_NODE": str(GPUS)})

    def _score(self, model: str, run: str, base: str, seed: int, tasks: Sequence[str]) -> Step:
        data, result = self.base(base)["dataset_dir"], results.path_of("paper", run, base)
        words = [
            "python",
            "scripts/paper/score.py",
            "--model",
            model,
            "--tasks",
            ",".join(tasks),
            "--observed",
            str(data),
        ]
        words += ["--run", run, "--seed", str(seed), "--output", _shown(result)]
        if any(task in CODE for task in tasks):
            words.append("--allow-code")
        return Step("score", tuple(words), _shown(result))


def _spoil(kind: str, config: Mapping[str, Any], folder: str) -> Step:
    """A map of the domains that are there, with its samples in others."""
    file = _file(config)
    words = ("python", "scripts/experiments/maps.py", file, kind, "--output", folder)
    return Step("spoil", words, f"{folder}/domains.json", config, file)


def _file(config: Mapping[str, Any]) -> str:
    return f"{config['output_dir']}.yaml"


def _shown(path: Path) -> str:
    return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else str(path)


# --- running: what is done is skipped, and a killed training resumes ---------------------------------------------


def lines(recipe: Recipe) -> Iterator[str]:
    """The commands of a run, as one would type them."""
    yield f"# {recipe.run} on {recipe.base}, seed {recipe.seed}"
    yield from (f"#   not as in the paper: {departure}" for departure in recipe.departures)
    for step in recipe.steps:
        yield line(step)


def line(step: Step) -> str:
    """One command with its environment."""
    words = [f"{key}={value}" for key, value in (step.environment or {}).items()]
    return " ".join([*words, shlex.join(step.command)])


def is_done(step: Step) -> bool:
    """Whether a step before the scores has left its mark."""
    return step.what != "score" and (ROOT / step.done).exists()


def execute(recipes: Sequence[Recipe], say: Callable[[str], None] = print) -> None:
    """Run each step that is not done. Raises DidsError at the first that fails; the same command goes on from there."""
    for recipe in recipes:
        for step in recipe.steps:
            if not is_done(step):
                say(line(step))
                _run(step)


def _run(step: Step) -> None:
    if step.file is not None and step.config is not None:
        path = ROOT / step.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(dict(step.config), sort_keys=False), encoding="utf-8")
    environment = {**os.environ, **(step.environment or {})}
    code = subprocess.run(step.command, cwd=ROOT, env=environment, check=False).returncode
    if code != 0:
        raise DidsError(f"{line(step)}: ended with code {code}; the same command goes on from here")
    if step.what == "cluster":
        mark = ROOT / step.done
        mark.parent.mkdir(parents=True, exist_ok=True)
        mark.touch()
