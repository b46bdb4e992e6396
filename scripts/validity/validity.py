"""Does a measured impact say what training does? Estimates scored against the truth, at checkpoints of small runs.

    python scripts/validity/validity.py run saves/validity.jsonl --seeds 1,2 --steps 40,100,160
    python scripts/validity/validity.py run saves/validity_continued.jsonl --continued --seeds 1,2,3
    python scripts/validity/validity.py run saves/validity_3m.jsonl --size cpu_3m --domains FOLDER_OF_A_MAP
    python scripts/validity/validity.py table saves/validity.jsonl --seeds 3,4

What is done is skipped. The truth for a domain and a task is how much more the task's held-out loss falls in the next
`--k` steps if `--share` of their samples come from the domain. README.md beside this file says more.
"""

import argparse
import fnmatch
import importlib.metadata
import os
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llamafactory_dids.errors import DidsError, refuse  # noqa: E402
from scripts.experiments import runner, sizes  # noqa: E402
from scripts.validity import records, tables, worlds  # noqa: E402
from scripts.validity.estimates import ESTIMATES, Estimate  # noqa: E402
from scripts.validity.scene import Scene  # noqa: E402
from scripts.validity.trials import Draws, Learner, State, truth  # noqa: E402

WORLD = ("held_out", "size", "continued", "domains", "model")  # the options that say which world it is
TRUTH = ("k", "share", "orders")
LIBRARIES = ("llamafactory", "torch", "transformers")
MakeWorld = Callable[[int], worlds.World]


def run(
    path: Path,
    make_world: MakeWorld,
    config: Mapping[str, Any],
    seeds: Sequence[int],
    steps: Sequence[int],
    estimates: Mapping[str, Estimate] = ESTIMATES,
) -> None:
    """Add to the results what they lack of these seeds and steps: truths, and estimates.

    `config` has k, share, orders and window, and what else says which world it is. Raises DidsError where the file is
    of another configuration, or a step has no room for its window or for the k steps after it.
    """
    lines = records.read(path)
    records.check_config(path, lines, config)
    known = records.checkpoints(lines)
    for seed in seeds:
        left = [step for step in sorted(steps) if not _is_done(known.get((seed, step)), estimates)]
        if left:
            _Run(path, make_world(seed), config, seed).through(left, known, estimates)


def _is_done(found: records.Checkpoint | None, estimates: Iterable[str]) -> bool:
    return found is not None and set(estimates) <= set(found.estimates)


class _Run:
    """A run of a seed, and what is added to the results on its way."""

    def __init__(self, path: Path, world: worlds.World, config: Mapping[str, Any], seed: int) -> None:
        self.path, self.world, self.config, self.seed = path, world, config, seed
        self.learner = Learner(world)
        how = world.training
        self.draws = Draws.by(world.mixture_D, how.max_steps, how.batch_size, seed)

    def through(
        self, steps: Sequence[int], known: Mapping[records.Key, records.Checkpoint], estimates: Mapping[str, Estimate]
    ) -> None:
        """Train through the steps, which ascend, and look at each."""
        k, window, end = self.config["k"], self.config["window"], self.world.training.max_steps
        for step in steps:
            if not window <= step <= end - k:
                raise refuse("--steps", step, f"{window} to {end - k}, of {end}, for the window before and the k after")
        states = self._states({at for step in steps for at in (step - window, step)})
        for step in steps:
            before, here = states[step - window], states[step]
            found = known.get((self.seed, step))
            self._check_or_find_truth(here, found)
            done = set() if found is None else set(found.estimates)
            missing = {name: estimate for name, estimate in estimates.items() if name not in done}
            scene = Scene(self.learner, before, self.draws.steps(before.step, step), here, self.seed)
            self._estimate(scene, missing)

    def _states(self, steps: set[int]) -> dict[int, State]:
        states = {}
        for step in sorted(steps):
            self.learner.train(self.draws.steps(self.learner.step, step))
            states[step] = self.learner.state()
        return states

    def _check_or_find_truth(self, here: State, found: records.Checkpoint | None) -> None:
        self.learner.restore(here)
        losses_T = self.learner.losses(self.world.held_out_T)
        if found is not None:
            records.check_same_run(self.path, (self.seed, here.step), found.losses_T, losses_T)
            return
        begun = time.process_time()
        how = {"num_steps": self.config["k"], "share": self.config["share"], "orders": self.config["orders"]}
        truth_RDT = truth(self.learner, here, seed=self.seed, **how)
        names = {"domains": list(self.world.rows_D), "tasks": list(self.world.held_out_T)}
        self._add(here.step, begun, **names, losses=losses_T, truth=truth_RDT)

    def _estimate(self, scene: Scene, estimates: Mapping[str, Estimate]) -> None:
        if not estimates:
            return
        begun = time.process_time()
        found = {name: estimate(scene) for name, estimate in estimates.items()}
        self._add(scene.here.step, begun, estimates=found)

    def _add(self, step: int, begun: float, **what: Any) -> None:
        seconds = round(time.process_time() - begun, 1)
        key = {"seed": self.seed, "step": step}
        made = {"config": dict(self.config), "command": shlex.join(sys.argv), "versions": _versions()}
        records.add(self.path, key | what | made | {"cpu_seconds": seconds})
        print(f"seed {self.seed}, step {step}: {'truth' if 'truth' in what else 'estimates'}, {seconds} s", flush=True)


def _versions() -> dict[str, str]:
    return {name: importlib.metadata.version(name) for name in LIBRARIES}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("run", help="add what a results file lacks")
    making.add_argument("results", type=Path)
    making.add_argument("--seeds", default="1", help="by commas")
    making.add_argument("--steps", default="40,100,160", help="the checkpoints, by commas")
    making.add_argument("--size", choices=sizes.FROM_SCRATCH, default="cpu", help="of the model and its runs")
    making.add_argument("--continued", action="store_true", help="begin with the proxy's weights, not with random ones")
    making.add_argument("--domains", type=Path, help="the folder of a domain map; default: each source is a domain")
    making.add_argument("--model", type=Path, help="the folder of another model, which is trained on")
    making.add_argument("--data", type=Path, default=runner.DATA, help="the data folder")
    making.add_argument("--folder", type=Path, help="where models and data are kept; default: that of runner.py")
    making.add_argument("--k", type=int, default=40, help="steps that the truth looks ahead")
    making.add_argument("--share", type=float, default=0.4, help="of their samples that come from the domain")
    making.add_argument("--orders", type=int, default=4, help="of these samples, over which the truth is a mean")
    making.add_argument("--held-out", type=int, default=100, help="samples of each task that the truth is of")
    making.add_argument("--window", type=int, default=12, help="steps of running gradients before a checkpoint")
    making.add_argument("--estimates", default="*", help="those whose names match a pattern")
    showing = commands.add_parser("table", help="print the scores")
    showing.add_argument("results", type=Path)
    showing.add_argument("--seeds", help="only these, by commas")
    showing.add_argument("--steps", help="only these, by commas")
    return parser


def _numbers(words: str | None) -> list[int] | None:
    return None if words is None else [int(word) for word in words.split(",") if word]


def main() -> None:
    options = _parser().parse_args()
    seeds, steps = _numbers(options.seeds), _numbers(options.steps)
    try:
        if options.command == "table":
            print(tables.table(records.checkpoints(records.read(options.results)), seeds, steps), end="")
            return
        os.environ.update(runner.SETUP)
        torch.set_num_threads(1)
        chosen = {name: ESTIMATES[name] for name in fnmatch.filter(ESTIMATES, options.estimates)}
        if not chosen:
            raise refuse("--estimates", options.estimates, f"a pattern of {', '.join(ESTIMATES)}")
        kept = {name: getattr(options, name) for name in (*WORLD, *TRUTH, "window")}
        config = {name: str(value) if isinstance(value, Path) else value for name, value in kept.items()}
        folder = options.folder or runner.folder_of(options.size)
        world = {name: getattr(options, name) for name in WORLD}
        run(
            options.results,
            lambda seed: worlds.mini(options.data, folder, seed, **world),
            config,
            seeds or [],
            steps or [],
            chosen,
        )
    except DidsError as error:
        raise SystemExit(f"error: {error}") from None


if __name__ == "__main__":
    main()
