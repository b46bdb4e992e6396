"""What a run left in its output folder: losses, accuracies on multiple choice, what was drawn, what it cost."""

import json
import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import torch
from torch import Tensor

from llamafactory_dids.artifacts.files import read_json
from llamafactory_dids.report.run import load_run
from llamafactory_dids.report.shares import shares_by_source

MAX_QUESTIONS = 50  # of each multiple-choice task


def read_result(values: dict[str, Any], tasks: Sequence[str], unseen: Sequence[str]) -> dict[str, Any]:
    """What a finished run left in its output folder, and the accuracy of its model."""
    output = Path(values["output_dir"])
    metrics = json.loads((output / "all_results.json").read_text())
    losses = {name: round(metrics[f"eval_{name}_test_loss"], 4) for name in (*tasks, *unseen)}
    runs = sorted((output / "dids" / "proxy_runs").glob("*.jsonl"))
    sources = sorted(shares_by_source(load_run(output / "dids")), key=lambda share: share.name)
    used = resource.getrusage(resource.RUSAGE_SELF)
    return {
        "losses": {name: losses[name] for name in tasks},
        "unseen": {name: losses[name] for name in unseen},
        "accuracy": accuracies(output, Path(values["dataset_dir"]), (*tasks, *unseen), values),
        "samples": samples_of(values),
        "proxy_samples": sum(json.loads(path.read_text().splitlines()[-1])["samples_seen"] for path in runs),
        "cpu_seconds": round(used.ru_utime + used.ru_stime, 1),
        "cost": read_json(output / "dids" / "cost.json"),
        "shares": {share.name: round(share.drawn, 4) for share in sources},
    }


def samples_of(values: dict[str, Any]) -> int:
    """How many a run trains on."""
    batch: int = values["per_device_train_batch_size"] * values.get("gradient_accumulation_steps", 1)
    return values["max_steps"] * batch


# --- multiple choice ---------------------------------------------------------------------------------------


def accuracies(folder: Path, data: Path, tasks: Sequence[str], values: Mapping[str, Any]) -> dict[str, float]:
    """Of each task with choices: how often the gold choice has the highest log-likelihood per token."""
    from transformers import AutoTokenizer

    found = {task: pq.read_table(data / f"{task}_test.parquet").to_pylist() for task in tasks}
    chosen = {task: [row for row in rows if row.get("choices")][:MAX_QUESTIONS] for task, rows in found.items()}
    if not any(chosen.values()):
        return {}
    tokenizer, device = AutoTokenizer.from_pretrained(folder), "cuda" if torch.cuda.is_available() else "cpu"
    model = _load(folder).to(device).eval()
    how = values["template"], values["cutoff_len"]
    right = {
        task: [_gold_wins(model, *_encode(tokenizer, row, *how), row["label"]) for row in rows]
        for task, rows in chosen.items()
    }
    return {task: round(sum(wins) / len(wins), 4) for task, wins in right.items() if wins}


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
    prompts = [ids[:-length] for ids, length in zip(sequences, lengths, strict=True)]
    shared = len(os.path.commonprefix(prompts)[:-1])  # read once; a prompt's last token predicts its answer's first
    cache = None
    if shared:
        read = torch.tensor([prompts[0][:shared]], device=model.device)
        cache = model(input_ids=read, use_cache=True).past_key_values
        cache.batch_repeat_interleave(len(sequences))
    rests = [ids[shared:] for ids in sequences]
    longest = max(map(len, rests))
    ids = torch.tensor([rest + [0] * (longest - len(rest)) for rest in rests], device=model.device)
    logits: Tensor = model(input_ids=ids, past_key_values=cache).logits.float().log_softmax(dim=-1)
    scores = []
    for i, (rest, length) in enumerate(zip(rests, lengths, strict=True)):
        places = torch.arange(len(rest) - length, len(rest), device=ids.device)
        scores.append(logits[i, places - 1, ids[i, places]].mean().item())
    return max(range(len(scores)), key=scores.__getitem__) == label
