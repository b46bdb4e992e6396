"""What all runs of a size share: a part of the sources, the tasks, models from scratch, and most often a trained proxy.

The domains are made of the gradients of a proxy that has been trained a little (a `proportional` run of a seed that is
not compared), as the paper's proxy is a trained model: gradients of random weights would say little about the data.

Of a size with a pretrained model that model is what the runs train, and what is made here is only its proxy, which has
a tokenizer of its own. Rows that the model's `tokens` do not hold are left out, in training and tasks alike: a prompt
that is cut loses its question. The sizes `quickstart` and `real` have no proxy: a seed's own model makes its domains.
"""

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from transformers import AutoTokenizer

from scripts.experiments import models
from scripts.quickstart import build_model, generate

TASKS = ("bbh", "boolq", "gsm8k", "minerva_math", "ifeval", "mmlu", "piqa", "pubmedqa", "truthfulqa")
UNSEEN = ("arc_challenge", "mbpp")
IRRELEVANT = ("finance_banking77", "finance_twitter", "finance_finqa")
SCORED = 200  # samples of each task's scored part
PROXY_SEED = 1000


@dataclass(frozen=True)
class Size:
    """What is made for the runs of one size. The keys of its trainings are in its YAML files."""

    name: str  # of its results and folder
    share: float  # of each training source that is not irrelevant
    vocabulary: int
    max_length: int  # of the model, in tokens
    hidden_size: int
    intermediate_size: int
    num_layers: int
    num_heads: int
    files: tuple[str, ...] = ("mini",)  # of keys/ or examples/yaml/, each after the one before
    on_gpu: bool = False
    scored: int = SCORED
    pretrained: str = ""  # of scripts/experiments/models.py; all of the above is then of its proxy
    tokens: int = 0  # of the pretrained model's, to which a whole row has to come
    marks: tuple[str, ...] = ()  # of its template, which the proxy's tokenizer must not take apart
    tasks: tuple[str, ...] = TASKS  # observed, unless a run says otherwise, and scored
    unseen: tuple[str, ...] = UNSEEN  # scored alone
    chosen: tuple[str, ...] = ()  # the sources; all where there are none
    has_proxy: bool = True


CPU = Size("mini", 0.15, 2048, 160, hidden_size=128, intermediate_size=256, num_layers=4, num_heads=4)
CPU_3M = replace(CPU, name="mini_3m", hidden_size=256, intermediate_size=512, num_heads=8)  # 3.15M parameters
GPU = Size(
    "mini_gpu",
    0.2,
    8192,
    320,
    hidden_size=768,
    intermediate_size=2048,
    num_layers=8,
    num_heads=12,
    files=("mini", "gpu"),
    on_gpu=True,
)
SMOLLM2 = replace(
    CPU,
    name="mini_smollm2",
    share=0.05,
    vocabulary=4096,
    max_length=512,
    files=("mini", "smollm2"),
    scored=40,
    pretrained="smollm2",
    tokens=384,
    marks=("<|im_start|>", "<|im_end|>"),
)
SMOLLM2_GPU = replace(
    SMOLLM2,
    name="mini_smollm2_gpu",
    share=0.2,
    max_length=1024,
    files=("mini", "smollm2", "smollm2_gpu"),
    on_gpu=True,
    scored=SCORED,
    tokens=768,
)
QUICKSTART = replace(
    CPU,
    name="quickstart",
    share=1.0,
    vocabulary=1500,  # as scripts/quickstart.sh has it
    max_length=256,
    files=("quickstart",),
    scored=generate.TEST_ROWS,
    tasks=tuple(generate.TASKS),
    unseen=(),
    chosen=tuple(generate.SOURCES),
    has_proxy=False,
)
REAL = replace(
    QUICKSTART,
    name="real",
    vocabulary=2000,
    max_length=128,
    files=("quickstart", "real"),
    scored=SCORED,
    tasks=("gsm8k", "arc_challenge", "pubmedqa"),
    chosen=(
        *("general_alpaca_en", "math_gsm8k", "code_alpaca"),
        *("science_mcq", "medical_medquad", "finance_twitter"),
    ),
)
SIZES = {"cpu": CPU, "cpu_3m": CPU_3M, "gpu": GPU, "smollm2": SMOLLM2, "smollm2_gpu": SMOLLM2_GPU}
SIZES |= {"quickstart": QUICKSTART, "real": REAL}
FROM_SCRATCH = [name for name, size in SIZES.items() if size.has_proxy and not size.pretrained]  # as their proxy is


def prepare_data(data: Path, folder: Path, size: Size = CPU) -> None:
    """The preset's own data folder: the same rows whenever it is made."""
    if (folder / "dataset_info.json").exists():
        return
    if size is not QUICKSTART and not (data / "dataset_info.json").exists():
        raise SystemExit(f"--data: got {data}, allowed: a folder with dataset_info.json, train/ and eval/")
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = AutoTokenizer.from_pretrained(models.ensure(size.pretrained)) if size.pretrained else None
    info: dict[str, Any] = {}
    for name, rows in _data_sets(data, size):
        if tokenizer is not None:
            rows = rows.filter(pa.array([_fits(tokenizer, row, size.tokens) for row in rows.to_pylist()], pa.bool_()))
        if name.endswith("_test"):
            rows = rows.slice(0, size.scored)
        pq.write_table(rows, folder / f"{name}.parquet")
        columns = {"prompt": "instruction", "query": "input", "response": "output"}
        info[name] = {"file_name": f"{name}.parquet", "columns": columns}
    (folder / "dataset_info.json").write_text(json.dumps(info, indent=1))


def _data_sets(data: Path, size: Size) -> Iterator[tuple[str, pa.Table]]:
    """Each data set of a size with its rows: those of the quickstart's made-up world, or of a folder."""
    if size is QUICKSTART:
        for name, made in generate.generate(0).items():
            yield (f"{name}_val" if name in size.tasks else name), pa.Table.from_pylist(made)
        return
    for path in sorted([*(data / "train").glob("*.parquet"), *(data / "eval").glob("*.parquet")]):
        is_source, rows = path.parent.name == "train", pq.read_table(path)
        if is_source and size.chosen and path.stem not in size.chosen:
            continue
        if is_source and path.stem not in IRRELEVANT:  # part of those would not make a quarter
            rows = rows.take(sorted(random.Random(path.stem).sample(range(len(rows)), round(size.share * len(rows)))))
        yield path.stem, rows


def _fits(tokenizer: Any, row: dict[str, Any], tokens: int) -> bool:
    """Whether a row is whole within so many tokens, one of which the host's template may have more than the model's."""
    question = "\n".join(part for part in (row["instruction"], row["input"]) if part)
    said = [{"role": "user", "content": question}, {"role": "assistant", "content": row["output"]}]
    text = tokenizer.apply_chat_template(said, tokenize=False)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"]) < tokens


def prepare_model(data: Path, folder: Path, seed: int, size: Size = CPU) -> None:
    """The seed's weights; the tokenizer is the same for all."""
    if (folder / "config.json").exists():
        return
    shared = folder.parent / "tokenizer"
    if not (shared / "tokenizer_config.json").exists():
        names = sources_of_preset(data, size)
        trained = build_model.train_tokenizer(build_model.texts(data, names), size.vocabulary, size.max_length)
        trained.add_tokens(list(size.marks), special_tokens=True)
        trained.save_pretrained(shared)
    tokenizer = build_model.PreTrainedTokenizerFast.from_pretrained(shared)
    tokenizer.save_pretrained(folder)
    model = build_model.build_llama(
        tokenizer,
        seed,
        hidden_size=size.hidden_size,
        intermediate_size=size.intermediate_size,
        num_layers=size.num_layers,
        num_heads=size.num_heads,
    )
    model.save_pretrained(folder)


def sources_of_preset(folder: Path, size: Size = CPU) -> list[str]:
    """The training sources of the preset's own data folder."""
    names = sorted(json.loads((folder / "dataset_info.json").read_text()))
    found = [name for name in names if not name.startswith(IRRELEVANT) and not name.endswith(("_val", "_test"))]
    return list(size.chosen) or found
