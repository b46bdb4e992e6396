"""Task configurations of the harness for local files: `TASK_test` is scored, examples are shown from `TASK_val`.

Files are .parquet, .jsonl or .json with `instruction`, `input`, `output`, and `choices` and `label` for multiple
choice. A task with choices is scored by the likelihood of each (`acc`); gsm8k by the number at the end of what is
generated; any other by the likelihood of its answer, in nats a character (score_loss.py), which is a loss, and not a
score.
"""

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from llamafactory_dids.errors import DidsError

PREFIX = "local_"
KINDS = {".parquet": "parquet", ".jsonl": "json", ".json": "json"}
QUESTION = "{{instruction}}{% if input %}\n{{input}}{% endif %}"
GENERATED = ("gsm8k",)
METRICS = {"multiple_choice": "acc,none", "generate_until": "exact_match,final", "loglikelihood": "loss,none"}
HELPER = Path(__file__).resolve().parent / "score_loss.py"


def write(data: Path, tasks: Sequence[str], shots: int) -> tuple[list[str], Path]:
    """Write a configuration a task into a new folder; the tasks' names in it, and the folder."""
    folder = Path(tempfile.mkdtemp(prefix="local_tasks_"))
    shutil.copy(HELPER, folder / HELPER.name)
    for task in tasks:
        (folder / f"{task}.yaml").write_text(text_of(config(data, task, shots)), encoding="utf-8")
    return [PREFIX + task for task in tasks], folder


def config(data: Path, task: str, shots: int) -> dict[str, Any]:
    """The configuration of one task. Raises DidsError where its files are missing or lack a column."""
    test = find(data, f"{task}_test")
    files = {"test": str(test)}
    if shots:
        files["validation"] = str(find(data, f"{task}_val"))
    found: dict[str, Any] = {
        "task": PREFIX + task,
        "dataset_path": KINDS[test.suffix],
        "dataset_kwargs": {"data_files": files},
        "test_split": "test",
        "output_type": kind(task, columns(test)),
        "doc_to_text": QUESTION,
    }
    if shots:
        found |= {"validation_split": "validation", "fewshot_split": "validation"}
    return found | _answers(found["output_type"]) | {"metadata": {"version": 1.0}}


def _answers(output: str) -> dict[str, Any]:
    if output == "multiple_choice":
        metric = {"metric": "acc", "aggregation": "mean", "higher_is_better": True}
        return {"doc_to_choice": "choices", "doc_to_target": "label", "metric_list": [metric]}
    if output == "generate_until":
        metric = {"metric": "exact_match", "aggregation": "mean", "higher_is_better": True}
        metric["regexes_to_ignore"] = [",", r"\$", "(?s).*#### ", r"\.$"]
        last = {"function": "regex", "regex_pattern": r"(-?[\d,]*\.?\d+)", "group_select": -1}
        return {
            "doc_to_target": "{{output}}",
            "generation_kwargs": {"until": ["Question:"], "do_sample": False, "max_gen_toks": 256},
            "filter_list": [{"name": "final", "filter": [last, {"function": "take_first"}]}],
            "metric_list": [metric],
        }
    metric = {"metric": "loss", "aggregation": "mean", "higher_is_better": False}
    return {
        "doc_to_target": "{{output}}",
        "process_results": f"!{HELPER.stem}.process_results",
        "metric_list": [metric],
    }


def text_of(values: Mapping[str, Any]) -> str:
    """As YAML, with the harness's tag for the helper's function."""
    text = yaml.safe_dump(dict(values), sort_keys=False)
    name = f"{HELPER.stem}.process_results"
    return text.replace(f"process_results: '!{name}'", f"process_results: !function {name}")


def kind(task: str, found: Sequence[str]) -> str:
    """How a task is scored."""
    if {"choices", "label"} <= set(found):
        return "multiple_choice"
    return "generate_until" if task in GENERATED else "loglikelihood"


def find(data: Path, name: str) -> Path:
    """The file of a part of a task, in the folder or one below it."""
    paths = [path for end in KINDS for path in sorted([*data.glob(name + end), *data.glob(f"*/{name}{end}")])]
    if not paths:
        raise DidsError(
            f"--local: got {data}, which has no {name}; allowed: a folder with {name}.parquet, .jsonl or .json"
        )
    return paths[0]


def columns(path: Path) -> list[str]:
    """The columns of a file, by its first row."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        return list(pq.read_schema(path).names)
    text = path.read_text(encoding="utf-8")
    return list(json.loads(text.splitlines()[0]) if path.suffix == ".jsonl" else json.loads(text)[0])


def scored_by(found: Mapping[str, Any], task: str) -> tuple[tuple[str, ...], str, bool, bool]:
    """The task's name in the harness and its metric, as `score.Harness` has them: percent of what is right, or, where
    there is only a likelihood, nats a character.
    """
    of_task = found["results"][PREFIX + task]
    metric = next(metric for metric in METRICS.values() if metric in of_task)
    return (PREFIX + task,), metric, False, metric == METRICS["loglikelihood"]
