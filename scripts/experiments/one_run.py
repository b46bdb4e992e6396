"""One run of the mini preset, in a process of its own: the host's `run_exp`, then the scores of what it left."""

import contextlib
import io
import json
import os
import resource
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

from llamafactory_dids.artifacts.domain_map import load_map, save_map
from scripts.compare import source_shares
from scripts.experiments import maps
from scripts.experiments.sizes import TASKS, UNSEEN

MAX_QUESTIONS = 50  # of each multiple-choice task


def train_and_score(values: dict[str, Any], log: Path) -> dict[str, Any]:
    """Run it with all its output in `log`; the losses and accuracies of the trained model, and what it cost."""
    begun = time.monotonic()
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            from llamafactory.train.tuner import run_exp

            torch.set_num_threads(1)
            run_exp(args=values)
            result = read_result(values)
    return result | {"seconds": round(time.monotonic() - begun, 1)}


def cluster(values: dict[str, Any], log: Path) -> float:
    """Make the domains of a run alone; CPU seconds."""
    make_domains(values, log)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return round(used.ru_utime + used.ru_stime, 1)


def make_domains(values: dict[str, Any], log: Path) -> Path:
    """The folder of a run's domains, made as `llamafactory-dids cluster` makes them, with all its output in `log`."""
    shown = io.StringIO()
    with open(log, "w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
        from llamafactory_dids.integration.commands.cli import main

        file = log.with_suffix(".yaml")
        file.write_text(json.dumps(values), encoding="utf-8")  # JSON is YAML
        torch.set_num_threads(1)
        sys.argv = ["llamafactory-dids", "cluster", str(file)]
        with contextlib.redirect_stdout(shown):
            main([*sys.argv[1:], "--json"])
        stream.write(shown.getvalue())
    return Path(json.loads(shown.getvalue())["path"])


def spoil(kind: str, values: dict[str, Any], log: Path) -> None:
    """Leave beside `log` a map of a run's domains, spoilt with its seed."""
    domain_map = load_map(make_domains(values, log))
    save_map(maps.KINDS[kind](domain_map, values["dids_seed"]), log.with_suffix(""))


def read_result(values: dict[str, Any]) -> dict[str, Any]:
    """What a finished run left in its output folder, and the accuracy of its model."""
    output = Path(values["output_dir"])
    metrics = json.loads((output / "all_results.json").read_text())
    losses = {name: round(metrics[f"eval_{name}_test_loss"], 4) for name in (*TASKS, *UNSEEN)}
    runs = sorted((output / "dids" / "proxy_runs").glob("*.jsonl"))
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "losses": {name: losses[name] for name in TASKS},
        "unseen": {name: losses[name] for name in UNSEEN},
        "accuracy": accuracies(output, Path(values["dataset_dir"]), values["template"], values["cutoff_len"]),
        "samples": samples_of(values),
        "proxy_samples": sum(json.loads(path.read_text().splitlines()[-1])["samples_seen"] for path in runs),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "cost": json.loads((output / "dids" / "cost.json").read_text()),
        "shares": {name: round(share, 4) for name, share in source_shares(output / "dids").items()},
    }


def samples_of(values: dict[str, Any]) -> int:
    """How many a run trains on."""
    batch: int = values["per_device_train_batch_size"] * values.get("gradient_accumulation_steps", 1)
    return values["max_steps"] * batch


# --- multiple choice ---------------------------------------------------------------------------------------


def accuracies(model_folder: Path, data: Path, template: str, cutoff: int) -> dict[str, float]:
    """Of each task with choices: how often the gold choice has the highest log-likelihood per token."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model = _load(model_folder).to(device).eval()
    found = {}
    for task in (*TASKS, *UNSEEN):
        questions = pq.read_table(data / f"{task}_test.parquet").to_pylist()
        rows = [row for row in questions if row.get("choices")][:MAX_QUESTIONS]
        if rows:
            right = [_gold_wins(model, *_encode(tokenizer, row, template, cutoff), row["label"]) for row in rows]
            found[task] = round(sum(right) / len(right), 4)
    return found


def _load(folder: Path) -> Any:
    """A model's folder, or an adapter's with its model; not every transformers reads one of the pinned peft itself."""
    from transformers import AutoModelForCausalLM

    note = folder / "adapter_config.json"
    if not note.exists():
        return AutoModelForCausalLM.from_pretrained(folder)
    from peft import PeftModel

    base = json.loads(note.read_text(encoding="utf-8"))["base_model_name_or_path"]
    return PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(base), folder).merge_and_unload()


def _encode(tokenizer: Any, row: dict[str, Any], template: str, cutoff: int) -> tuple[list[list[int]], list[int]]:
    """Token ids of the prompt with each choice, cut as training cuts them, and how many are the choice's."""
    from llamafactory.data.processor.processor_utils import infer_seqlen
    from llamafactory.data.template import TEMPLATES

    question = "\n".join(part for part in (row["instruction"], row["input"]) if part)
    sequences, lengths = [], []
    for choice in row["choices"]:
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": choice}]
        prompt, answer = TEMPLATES[template].encode_oneturn(tokenizer, messages)
        num_prompt, num_answer = infer_seqlen(len(prompt), len(answer), cutoff)
        sequences.append(prompt[:num_prompt] + answer[:num_answer])
        lengths.append(num_answer)
    return sequences, lengths


@torch.inference_mode()
def _gold_wins(model: Any, sequences: list[list[int]], lengths: list[int], label: int) -> bool:
    longest = max(map(len, sequences))
    ids = torch.tensor([sequence + [0] * (longest - len(sequence)) for sequence in sequences], device=model.device)
    logits: Tensor = model(input_ids=ids).logits.float().log_softmax(dim=-1)
    scores = []
    for i, (sequence, length) in enumerate(zip(sequences, lengths, strict=True)):
        places = torch.arange(len(sequence) - length, len(sequence), device=ids.device)
        scores.append(logits[i, places - 1, ids[i, places]].mean().item())
    return max(range(len(scores)), key=scores.__getitem__) == label
