"""What all runs of the mini preset share: a part of the sources, the tasks, models from scratch, a trained proxy.

The domains are made of the gradients of a proxy that has been trained a little (a `proportional` run of a seed that is
not compared), as the paper's proxy is a trained model: gradients of random weights would say little about the data.
"""

import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from scripts.quickstart import build_model

TASKS = ("bbh", "boolq", "gsm8k", "minerva_math", "ifeval", "mmlu", "piqa", "pubmedqa", "truthfulqa")
UNSEEN = ("arc_challenge", "mbpp")
IRRELEVANT = ("finance_banking77", "finance_twitter", "finance_finqa")
SHARE = 0.15  # of each training source
SCORED = 200  # samples of each task's scored part
VOCABULARY = 2048
MAX_LENGTH = 160
PROXY_SEED = 1000


def sources(data: Path) -> list[str]:
    """The training sources of the data folder, without the irrelevant ones."""
    names = sorted(path.stem for path in (data / "train").glob("*.parquet"))
    return [name for name in names if name not in IRRELEVANT]


def prepare_data(data: Path, folder: Path) -> None:
    """The preset's own data folder: the same rows whenever it is made."""
    if (folder / "dataset_info.json").exists():
        return
    if not (data / "dataset_info.json").exists():
        raise SystemExit(f"--data: got {data}, allowed: a folder with dataset_info.json, train/ and eval/")
    folder.mkdir(parents=True, exist_ok=True)
    info: dict[str, Any] = {}
    for path in sorted([*(data / "train").glob("*.parquet"), *(data / "eval").glob("*.parquet")]):
        rows = pq.read_table(path)
        pq.write_table(_part(path, rows), folder / path.name)
        columns = {"prompt": "instruction", "query": "input", "response": "output"}
        info[path.stem] = {"file_name": path.name, "columns": columns}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=1))


def _part(path: Path, rows: pa.Table) -> pa.Table:
    """A part of a source, the first rows of a scored part, all that may be observed."""
    if path.parent.name == "train":
        wanted = sorted(random.Random(path.stem).sample(range(len(rows)), round(SHARE * len(rows))))
        return rows.take(wanted)
    return rows.slice(0, SCORED) if path.stem.endswith("_test") else rows


def prepare_model(data: Path, folder: Path, seed: int) -> None:
    """The seed's weights; the tokenizer is the same for all."""
    if (folder / "config.json").exists():
        return
    shared = folder.parent / "tokenizer"
    if not (shared / "tokenizer_config.json").exists():
        names = sources_of_preset(data)
        trained = build_model.train_tokenizer(build_model.texts(data, names), VOCABULARY, MAX_LENGTH)
        trained.save_pretrained(shared)
    tokenizer = build_model.PreTrainedTokenizerFast.from_pretrained(shared)
    tokenizer.save_pretrained(folder)
    build_model.build_llama(tokenizer, seed).save_pretrained(folder)


def sources_of_preset(folder: Path) -> list[str]:
    """The training sources of the preset's own data folder."""
    names = sorted(json.loads((folder / "dataset_info.json").read_text()))
    return [name for name in names if name not in IRRELEVANT and not name.endswith(("_val", "_test"))]
