"""Score a model by lm-evaluation-harness as the paper does: 3 shots, chat template, vLLM or else the HF backend.

    python scripts/paper/score.py --model saves/paper/llama_tulu/dids/1 --observed data/tulu3 --run dids --seed 1 \\
        --output docs/results/paper/llama_tulu/dids.jsonl
    python scripts/paper/score.py --model MODEL --local ../shared/data/eval --tasks boolq,gsm8k --backend hf

Needs `pip install llamafactory-dids[paper]`, and vLLM for its backend. Without --local the harness's own tasks are
scored, from the hub or its cache; with it, the `TASK_test` parts of a folder, by task configurations that are written
for it (score_local.py), and without any network. --observed names the folder where prepare_data.py left
`scored.json`: of a task without a split of its own for them, the documents that were observed are not scored.
"""

import argparse
import importlib.util
import json
import math
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from llamafactory_dids.artifacts.files import read_json  # noqa: E402
from llamafactory_dids.config import split_list  # noqa: E402
from llamafactory_dids.errors import DidsError  # noqa: E402
from scripts.experiments import results  # noqa: E402
from scripts.experiments.definition import TASKS  # noqa: E402

SHOTS = 3
INSTALL = "allowed: after `pip install llamafactory-dids[paper]`"


@dataclass(frozen=True)
class Harness:
    """A task of ours in the harness: its names there, and what is taken for the score."""

    names: tuple[str, ...]
    metric: str
    runs_code: bool = False
    percent: bool = False  # whether the harness gives percent already


_MATH = ("algebra", "counting_and_prob", "geometry", "intermediate_algebra", "num_theory", "prealgebra", "precalc")
# The paper names neither metrics nor variants of a task. What stands here is a guess: the plainest of each, mc1 of
# TruthfulQA for the height of what is printed (28.5 before training), ARC's chat variant for the same reason (76.4).
HARNESS = {
    "bbh": Harness(("bbh_cot_fewshot",), "exact_match,get-answer"),
    "boolq": Harness(("boolq",), "acc,none"),
    "gsm8k": Harness(("gsm8k",), "exact_match,strict-match"),
    "minerva_math": Harness(tuple(f"minerva_math_{name}" for name in _MATH), "exact_match,none"),
    "ifeval": Harness(("ifeval",), "prompt_level_strict_acc,none"),
    "mmlu": Harness(("mmlu",), "acc,none"),
    "piqa": Harness(("piqa",), "acc,none"),
    "pubmedqa": Harness(("pubmedqa",), "acc,none"),
    "truthfulqa": Harness(("truthfulqa_mc1",), "acc,none"),
    "arc_challenge": Harness(("arc_challenge_chat",), "exact_match,remove_whitespace"),
    "mbpp": Harness(("mbpp",), "pass_at_1,none", runs_code=True),
    "humaneval": Harness(("humaneval",), "pass@1,create_test", runs_code=True),
    "wmt16": Harness(("wmt16-en-de",), "bleu,none", percent=True),
}


def parser() -> argparse.ArgumentParser:
    """The command line; the dry run reads its commands with it."""
    found = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    found.add_argument("--model", required=True, help="a trained model's folder, or a hub name")
    found.add_argument("--tasks", default=",".join(TASKS), help="comma-separated")
    found.add_argument(
        "--local", type=Path, help="score the TASK_test files of this folder instead of the harness's tasks"
    )
    found.add_argument(
        "--observed", type=Path, help="the prepared data folder, whose scored.json leaves observed ones out"
    )
    found.add_argument("--shots", type=int, default=SHOTS)
    found.add_argument(
        "--backend", choices=("auto", "vllm", "hf"), default="auto", help="auto: vllm where it is installed"
    )
    found.add_argument("--batch-size", default="auto")
    found.add_argument("--device", help="of the HF backend")
    found.add_argument("--limit", type=int, help="documents a task, to try it out")
    found.add_argument("--allow-code", action="store_true", help="run what the model writes, for mbpp and humaneval")
    found.add_argument("--run", default="", help="the run's name, for the result line")
    found.add_argument("--seed", type=int, default=1)
    found.add_argument("--output", type=Path, help="the file of result lines to add to")
    return found


def main() -> None:
    given = parser().parse_args()
    try:
        line = score(given)
    except DidsError as error:
        raise SystemExit(f"error: {error}") from None
    if given.output is not None:
        results.add(given.output, line)
    print(json.dumps(line, indent=1))


def score(given: argparse.Namespace) -> dict[str, Any]:
    """A result line: the score of each task in percent with its standard error, and how they were made."""
    tasks = split_list(given.tasks)
    check(tasks, given)
    if importlib.util.find_spec("lm_eval") is None:
        raise DidsError(f"lm_eval: not installed; {INSTALL}")
    backend = choose_backend(given.backend)
    found, version = evaluate(given, tasks, backend)
    wanted = HARNESS
    if given.local is not None:
        from scripts.paper import score_local

        wanted = {task: Harness(*score_local.scored_by(found, task)) for task in tasks}
    values = {task: value_of(wanted[task], found) for task in tasks}
    scores = {task: value for task, (value, _) in values.items()}
    errors = {task: error for task, (_, error) in values.items() if error is not None}
    how: dict[str, Any] = {
        "backend": backend,
        "shots": given.shots,
        "harness": version,
        "local": given.local is not None,
    }
    cost = Path(given.model) / "dids" / "cost.json"  # seconds of a training with this plugin
    how |= {"cost": read_json(cost)} if cost.exists() else {}
    return {"run": given.run, "seed": given.seed, "model": given.model, "scores": scores, "errors": errors, **how}


def check(tasks: Sequence[str], given: argparse.Namespace) -> None:
    """Raise DidsError for a task that cannot be scored, or runs code without leave."""
    for task in tasks:
        if task in results.NOT_SCORED:
            raise DidsError(
                f"--tasks: {task} needs a judge model, which lm-evaluation-harness has not; allowed: others"
            )
        if task not in HARNESS:
            raise DidsError(f"--tasks: got {task!r}, allowed: {', '.join(HARNESS)}")
        if HARNESS[task].runs_code and given.local is None and not given.allow_code:
            raise DidsError(f"--tasks: {task} runs code that the model wrote; allowed: with --allow-code, in a sandbox")


def choose_backend(wanted: str) -> str:
    """`vllm` or `hf`; which one is said where it was not asked for."""
    installed = importlib.util.find_spec("vllm") is not None
    if wanted == "vllm" and not installed:
        raise DidsError("--backend: got 'vllm', which is not installed; allowed: hf, or vllm after `pip install vllm`")
    if wanted != "auto":
        return wanted
    if not installed:
        print(
            "score: vllm is not installed, so the HF backend is used; it is slower, and its scores may differ a little"
        )
    return "vllm" if installed else "hf"


def evaluate(given: argparse.Namespace, tasks: Sequence[str], backend: str) -> tuple[dict[str, Any], str]:
    """What the harness found by its task names, and its version."""
    os.environ["HF_ALLOW_CODE_EVAL"] = "1" if given.allow_code else "0"
    import lm_eval
    from lm_eval.tasks import TaskManager

    if given.local is not None:
        from scripts.paper import score_local

        names, folder = score_local.write(given.local, tasks, given.shots)
        manager = TaskManager(include_path=str(folder), include_defaults=False)
    else:
        names, manager = [name for task in tasks for name in HARNESS[task].names], TaskManager()
    templated = has_template(given.model)
    found = lm_eval.simple_evaluate(
        model=backend,
        model_args=model_arguments(given.model, backend)
        | {"dtype": "float32" if given.device == "cpu" else "bfloat16"},
        tasks=names,
        num_fewshot=given.shots,
        batch_size=given.batch_size if backend == "vllm" or given.batch_size != "auto" else 8,
        device=given.device if backend == "hf" else None,
        limit=given.limit,
        samples=None if given.limit is not None else scored(given.observed),
        task_manager=manager,
        apply_chat_template=templated,
        fewshot_as_multiturn=templated and given.shots > 0,
        log_samples=False,
        bootstrap_iters=100,  # of the few metrics whose standard error has no formula
        confirm_run_unsafe_code=given.allow_code,
        random_seed=given.seed,
    )
    return found, lm_eval.__version__


def scored(folder: Path | None) -> dict[str, list[int]] | None:
    """Of tasks whose observed documents are among the harness's: the numbers of those that are scored."""
    if folder is None:
        return None
    path = folder / "scored.json"
    if not path.exists():
        raise DidsError(f"--observed: got {folder}, which has no scored.json; allowed: a folder of prepare_data.py")
    found: dict[str, list[int]] = json.loads(path.read_text(encoding="utf-8"))
    return found


def has_template(model: str) -> bool:
    """Whether the tokenizer has a chat template; it is said where it has none, as with a model that was not tuned."""
    from transformers import AutoTokenizer

    found = bool(AutoTokenizer.from_pretrained(model).chat_template)
    if not found:
        print(f"score: {model} has no chat template, and is scored without one")
    return found


def model_arguments(model: str, backend: str) -> dict[str, str | bool]:
    """How the harness loads a model, or the folder of an adapter with the model that it was trained on."""
    note = Path(model) / "adapter_config.json"
    if not note.exists():
        return {"pretrained": model}
    base = {"pretrained": read_json(note)["base_model_name_or_path"], "tokenizer": model}
    return base | ({"peft": model} if backend == "hf" else {"lora_local_path": model, "enable_lora": True})


def value_of(task: Harness, found: Mapping[str, Any]) -> tuple[float, float | None]:
    """A task's score in percent, and its standard error, if the harness gives one.

    Of several tasks of the harness's it is the mean by their number of documents.
    """
    tables = found.get("groups", {}) | found["results"]  # a group's mean stands in one of them, by version
    if lost := [name for name in task.names if task.metric not in tables.get(name, {})]:
        raise DidsError(
            f"{lost[0]}: the harness gave {', '.join(tables.get(lost[0], {})) or 'nothing'}; allowed: {task.metric}"
        )
    counts = [found["n-samples"][name]["effective"] for name in task.names] if len(task.names) > 1 else [1]
    parts = [
        (n / sum(counts) * (1 if task.percent else 100), tables[name])
        for n, name in zip(counts, task.names, strict=True)
    ]
    value = round(math.fsum(part * table[task.metric] for part, table in parts), 4)
    errors = [table.get(task.metric.replace(",", "_stderr,")) for _, table in parts]
    if not all(isinstance(error, float) for error in errors):
        return value, None
    return value, round(math.hypot(*(part * error for (part, _), error in zip(parts, errors, strict=True))), 4)


if __name__ == "__main__":
    main()
