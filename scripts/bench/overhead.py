"""What a mixture costs a training: steps of `dids`, of a fixed mixture, of the host's own and of DataFlex, in turns.

    python scripts/bench/overhead.py --threads 1 --clock cpu
    python scripts/bench/overhead.py --dataflex /path/to/venv/bin/python      # with DataFlex's ODM mixer too

Each candidate is a training of its own process, by the host's `run_exp`: the same model (a 35M Llama), made-up data of
the same size, as many steps. They are started together, and each does one step when it is its turn and waits in
between, so that what else the machine does falls on all alike. A step is all from the start of one to the start of the
next: loading, forward, backward, optimizer, callbacks. An update of `dids` is timed apart, and after it a plain forward
pass over the batches of task samples that it measured.

DataFlex wants versions of its own of what LLaMA-Factory stands on, so it belongs into an environment of its own:
`python -m venv DIR && DIR/bin/pip install dataflex==1.1.0`.
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from transformers import LlamaConfig

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from scripts.bench import made_up, timing  # noqa: E402
from scripts.bench.gradients import MODELS  # noqa: E402

SIZES = {
    "llama": MODELS["llama"],
    "small": LlamaConfig(  # what costs the same whatever the model's size shows in its short steps
        vocab_size=8000, hidden_size=64, intermediate_size=128, num_hidden_layers=4, num_attention_heads=4
    ),
}
NUM_WORDS, LENGTH = 7000, 256
HOST = ("concat", "interleave_under")
OURS = ("proportional", "odm", "dids")
DATAFLEX = "dataflex odm"
COMPONENTS = """mixers:
  odm:
    name: odm
    params: {alpha: 0.9, warmup_steps: 0, reward_scale: 15.0, min_exploration_rate: 0.03, initial_proportions: null}
"""


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """A model folder, and data sets of made-up words whose samples all fill the context."""
    rng = random.Random(0)
    words = made_up.words(NUM_WORDS)
    made_up.save_model(folder, NUM_WORDS, SIZES[arguments.model])
    (folder / "data").mkdir()
    info = {}
    sizes = {f"source_{i:02d}": arguments.samples for i in range(arguments.sources)}
    for name, size in (sizes | {f"task_{i}": arguments.task_samples for i in range(arguments.tasks)}).items():
        own = rng.sample(words, 200)
        texts = [(" ".join(rng.choices(own, k=16)), " ".join(rng.choices(own, k=LENGTH))) for _ in range(size)]
        rows = [{"instruction": prompt, "input": "", "output": answer} for prompt, answer in texts]
        (folder / "data" / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
        info[name] = {"file_name": f"{name}.json"}
    (folder / "data" / "dataset_info.json").write_text(json.dumps(info), encoding="utf-8")
    (folder / "components.yaml").write_text(COMPONENTS, encoding="utf-8")


def keys_of(candidate: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The training arguments of a candidate: the same for all but for how it mixes."""
    sources = [f"source_{i:02d}" for i in range(arguments.sources)]
    keys = made_up.keys(folder, candidate, sources) | {
        "cutoff_len": LENGTH,
        "per_device_train_batch_size": arguments.batch,
        "max_steps": arguments.rounds + 2,
        "learning_rate": 1e-4,
        "logging_steps": 1000,
        "save_strategy": "no",
        "disable_gradient_checkpointing": True,
    }
    if not torch.cuda.is_available():
        keys["use_cpu"] = True
    if candidate == DATAFLEX:
        return keys | {
            "train_type": "dynamic_mix",
            "component_name": "odm",
            "components_cfg_file": str(folder / "components.yaml"),
            "mixture_sample_rule": "mixture",
            "warmup_step": arguments.window,
            "update_step": arguments.window,
            "update_times": -1,
            "train_step": arguments.rounds + 2,
        }
    keys["mix_strategy"] = candidate
    if candidate == "interleave_under":
        keys["interleave_probs"] = ",".join([repr(1 / len(sources))] * len(sources))
    if candidate in OURS:
        keys |= {"dids_domains": "source", "dids_update_samples": arguments.window * arguments.batch}
    if candidate == "dids":
        keys |= {
            "dids_tasks": ",".join(f"task_{i}" for i in range(arguments.tasks)),
            "dids_task_samples": arguments.task_samples,
        }
    return keys


class Training:
    """A training in a process of its own, which does a step when it is told to."""

    def __init__(self, candidate: str, folder: Path, arguments: argparse.Namespace) -> None:
        self.candidate = candidate
        self.log = folder / f"{candidate.replace(' ', '_')}.log"
        go_out, self._go = os.pipe()
        answers, answers_in = os.pipe()
        self._answers = os.fdopen(answers, encoding="utf-8")
        python = arguments.dataflex if candidate == DATAFLEX else sys.executable
        settings = {
            "keys": keys_of(candidate, folder, arguments),
            "dataflex": candidate == DATAFLEX,
            "clock": arguments.clock,
            "threads": arguments.threads,
            "go": go_out,
            "answers": answers_in,
        }
        environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": str(arguments.threads)}
        if candidate == DATAFLEX:
            environment.pop("PYTHONPATH", None)
        with open(self.log, "w", encoding="utf-8") as stream:
            self.process = subprocess.Popen(
                [str(python), str(ROOT / "scripts" / "bench" / "overhead_child.py"), json.dumps(settings)],
                stdout=stream,
                stderr=stream,
                pass_fds=(go_out, answers_in),
                env=environment,
                cwd=folder,
            )
        os.close(go_out)
        os.close(answers_in)
        self.steps: list[dict[str, float]] = []

    def ready(self) -> None:
        """Return when the training stands before its first step. Raises SystemExit if it ended before."""
        self._answer()

    def step(self) -> None:
        """One step."""
        os.write(self._go, b"g")
        self.steps.append(self._answer())

    def _answer(self) -> dict[str, float]:
        line = self._answers.readline()
        if not line:
            raise SystemExit(f"overhead: {self.candidate} ended:\n{self.log.read_text(encoding='utf-8')[-3000:]}")
        answer: dict[str, float] = json.loads(line)
        return answer

    def end(self) -> None:
        """Stop; what it would still do is not of interest."""
        self.process.kill()
        self.process.wait()


def in_turns(trainings: list[Training], rounds: int) -> None:
    """A step of each in each round, after one that does not count; who is first changes."""
    for training in trainings:
        training.ready()
    for turn in range(rounds + 1):
        for training in trainings[turn % len(trainings) :] + trainings[: turn % len(trainings)]:
            training.step()


def summary(steps: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Ratios of the steps without their updates, and what an update costs; the first step of each is left out."""
    plain = {name: [one["seconds"] - one.get("update", 0.0) for one in rows[1:]] for name, rows in steps.items()}
    references = [name for name in ("concat", "proportional") if name in plain]
    result: dict[str, Any] = {
        f"a step, without updates, against {name}": timing.ratios(plain, name) for name in references
    }
    if all("kernel" in one for rows in steps.values() for one in rows[1:]):
        kernel = {name: [one["kernel"] for one in rows[1:]] for name, rows in steps.items()}
        own = {
            name: [one - other for one, other in zip(plain[name], seconds, strict=True)]
            for name, seconds in kernel.items()
        }
        result["a step, without updates, in the kernel"] = {
            name: _spread(values, "seconds") for name, values in kernel.items()
        }
        result |= {
            f"a step, without updates and the kernel, against {name}": timing.ratios(own, name) for name in references
        }
    if mixing := {name: rows[1:] for name, rows in steps.items() if all("mixing" in one for one in rows[1:])}:
        result["all else of a mixture, share of a step"] = {
            name: _spread([one["mixing"] / seconds for one, seconds in zip(rows, plain[name], strict=True)])
            for name, rows in mixing.items()
        }
    if "dids" not in steps:
        return result
    rows = steps["dids"][1:]
    shares = [one["running"] / seconds for one, seconds in zip(rows, plain["dids"], strict=True)]
    result["running gradients, share of a step"] = {"": _spread(shares)}
    if updates := [one for one in rows if "update" in one]:
        step = statistics.median(plain["dids"])
        # a domain that no batch has had yet is measured by passes of its own: once in a run, so apart
        fresh = [one.get("fresh", 0.0) for one in updates]
        pairs = list(zip(updates, fresh, strict=True))
        result["an update of dids"] = {
            "against a forward pass over the task tokens": _spread(
                [(o["update"] - f) / o["forward"] for o, f in pairs]
            ),
            "its measurement of the tasks alone": _spread([one["measure"] / one["forward"] for one in updates]),
            "all else of it, in steps": _spread([(o["update"] - f - o["measure"]) / step for o, f in pairs]),
            "domains that were never drawn, in steps": _spread([f / step for f in fresh]),
        }
    return result


def _spread(values: list[float], of: str = "ratio") -> dict[str, float]:
    return {of: statistics.median(values), "lowest": min(values), "highest": max(values)}


def main() -> None:
    parser = argparse.ArgumentParser(description="Time what a mixture costs a training.")
    timing.add_arguments(parser, rounds=12)
    parser.add_argument("--model", choices=sorted(SIZES), default="llama")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--window", type=int, default=4, help="steps between two updates")
    parser.add_argument("--sources", type=int, default=12)
    parser.add_argument("--samples", type=int, default=40, help="of a source")
    parser.add_argument("--tasks", type=int, default=3)
    parser.add_argument("--task-samples", type=int, default=16)
    parser.add_argument("--candidates", default=",".join((*HOST, *OURS)))
    parser.add_argument("--dataflex", type=Path, help="the python of an environment with dataflex 1.1")
    arguments = parser.parse_args()
    candidates = arguments.candidates.split(",")
    if arguments.dataflex is not None:
        candidates.append(DATAFLEX)
    else:
        print("without --dataflex, its ODM mixer is left out (pip install dataflex==1.1.0, see above)", file=sys.stderr)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, arguments)
        trainings = [Training(candidate, folder, arguments) for candidate in candidates]
        try:
            in_turns(trainings, arguments.rounds)
        finally:
            for training in trainings:
                training.end()
    result = summary({training.candidate: training.steps for training in trainings})
    timing.report("overhead of a mixture", {**result, "machine": timing.machine(arguments)}, arguments.json)


if __name__ == "__main__":
    main()
