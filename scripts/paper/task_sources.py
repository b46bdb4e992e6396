"""Where each task's samples come from, and how one is put into our columns.

Observed samples come from a training or validation part that is not scored. Where the hub has one part only (bbh,
ifeval, truthfulqa) the samples of the smallest hashes are observed, and the rest are scored: whatever the order of
the file. A local folder may stand in for the hub: TASK/PART.jsonl or .parquet, TASK/CONFIG/PART.… for a task of
several configurations.
"""

import ast
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from llamafactory_dids.errors import DidsError

Row = Mapping[str, Any]
LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Sample:
    """One sample: the prompt, the answer, the choices if it has any, and the bare question, which is looked for."""

    instruction: str
    output: str
    question: str
    choices: tuple[str, ...] = ()
    label: int | None = None

    def columns(self) -> dict[str, Any]:
        """As a line of a data set."""
        found: dict[str, Any] = {"instruction": self.instruction, "input": "", "output": self.output}
        return found if self.label is None else found | {"choices": list(self.choices), "label": self.label}


@dataclass(frozen=True)
class Source:
    """A task on the hub. `scored` is the part that the harness scores, under `names` there, one a configuration."""

    hub: str
    configs: tuple[str | None, ...]
    observed: str
    scored: str
    convert: Callable[[Row], Sample]
    names: str = ""  # the harness's name, with {config}; only where both parts are one

    @property
    def by_hash(self) -> bool:
        """Whether observed and scored samples come from one part."""
        return self.observed == self.scored


def _chosen(prompt: str, question: str, choices: list[str], label: int) -> Sample:
    return Sample(prompt, choices[label], question, tuple(choices), label)


def _lettered(question: str, texts: list[str]) -> str:
    lines = [f"{letter}. {text}" for letter, text in zip(LETTERS, texts, strict=False)]
    return "\n".join([question, *lines, "Answer:"])


def _bbh(row: Row) -> Sample:
    return Sample(f"Q: {row['input']}\nA:", str(row["target"]), row["input"])


def _boolq(row: Row) -> Sample:
    prompt = f"{row['passage']}\nQuestion: {row['question']}?\nAnswer:"
    return _chosen(prompt, f"{row['passage']} {row['question']}", ["no", "yes"], int(row["label"]))


def _gsm8k(row: Row) -> Sample:
    return Sample(f"Question: {row['question']}\nAnswer:", row["answer"], row["question"])


def _math(row: Row) -> Sample:
    return Sample(f"Problem:\n{row['problem']}\n\nSolution:", row["solution"], row["problem"])


def _ifeval(row: Row) -> Sample:
    return Sample(row["prompt"], row.get("response") or "", row["prompt"])


def _mmlu(row: Row) -> Sample:
    letters = list(LETTERS[: len(row["choices"])])
    return _chosen(
        _lettered(row["question"].strip(), list(row["choices"])), row["question"], letters, int(row["answer"])
    )


def _piqa(row: Row) -> Sample:
    texts = [row["sol1"], row["sol2"]]
    return _chosen(f"Question: {row['goal']}\nAnswer:", f"{row['goal']} {' '.join(texts)}", texts, int(row["label"]))


def _pubmedqa(row: Row) -> Sample:
    contexts = row.get("CONTEXTS") or row["context"]["contexts"]
    question = row.get("QUESTION") or row["question"]
    prompt = f"Abstract: {' '.join(contexts)}\nQuestion: {question}\nAnswer:"
    choices = ["yes", "no", "maybe"]
    return _chosen(prompt, f"{' '.join(contexts)} {question}", choices, choices.index(row["final_decision"]))


def _truthfulqa(row: Row) -> Sample:
    targets = row["mc1_targets"]
    targets = ast.literal_eval(targets) if isinstance(targets, str) else targets
    label = list(targets["labels"]).index(1)
    return _chosen(f"Q: {row['question']}\nA:", row["question"], list(targets["choices"]), label)


_BBH = (
    *("boolean_expressions", "causal_judgement", "date_understanding", "disambiguation_qa", "dyck_languages"),
    *("formal_fallacies", "geometric_shapes", "hyperbaton", "logical_deduction_five_objects"),
    *("logical_deduction_seven_objects", "logical_deduction_three_objects", "movie_recommendation"),
    *("multistep_arithmetic_two", "navigate", "object_counting", "penguins_in_a_table"),
    *("reasoning_about_colored_objects", "ruin_names", "salient_translation_error_detection", "snarks"),
    *("sports_understanding", "temporal_sequences", "tracking_shuffled_objects_five_objects"),
    *("tracking_shuffled_objects_seven_objects", "tracking_shuffled_objects_three_objects", "web_of_lies"),
    "word_sorting",
)
_MATH = ("algebra", "counting_and_probability", "geometry", "intermediate_algebra", "number_theory")
SOURCES = {
    "bbh": Source("SaylorTwift/bbh", _BBH, "test", "test", _bbh, "bbh_cot_fewshot_{config}"),
    "boolq": Source("aps/super_glue", ("boolq",), "train", "validation", _boolq),
    "gsm8k": Source("openai/gsm8k", ("main",), "train", "test", _gsm8k),
    "minerva_math": Source("EleutherAI/hendrycks_math", (*_MATH, "prealgebra", "precalculus"), "train", "test", _math),
    "ifeval": Source("google/IFEval", (None,), "train", "train", _ifeval, "ifeval"),
    "mmlu": Source("cais/mmlu", ("all",), "validation", "test", _mmlu),
    "piqa": Source("baber/piqa", (None,), "train", "validation", _piqa),
    "pubmedqa": Source("bigbio/pubmed_qa", ("pubmed_qa_labeled_fold0_source",), "train", "test", _pubmedqa),
    "truthfulqa": Source(
        "truthfulqa/truthful_qa", ("multiple_choice",), "validation", "validation", _truthfulqa, "truthfulqa_mc1"
    ),
}


def read(task: str, part: str, local: Path | None) -> Iterator[tuple[str | None, int, Sample]]:
    """(configuration, number in it, sample) of a part of a task, in the order of its files."""
    source = SOURCES[task]
    for config in source.configs:
        for number, row in enumerate(_rows(task, source, config, part, local)):
            try:
                sample = source.convert(row)
            except (KeyError, TypeError, ValueError) as error:
                raise DidsError(
                    f"{task}, {part}, row {number}: cannot be read ({error!r}); allowed: the hub's columns"
                ) from None
            yield config, number, sample


def _rows(task: str, source: Source, config: str | None, part: str, local: Path | None) -> Iterator[Row]:
    if local is None:
        from datasets import load_dataset

        yield from load_dataset(source.hub, config, split=part)
        return
    folders = [local / task / config, local / task] if config else [local / task]
    paths = [folder / f"{part}{end}" for folder in folders for end in (".jsonl", ".parquet")]
    path = next((path for path in paths if path.exists()), None)
    if path is None:
        raise DidsError(
            f"--task-files: got {local}, which has no {paths[0]}; allowed: a folder with TASK/PART.jsonl or .parquet"
        )
    if path.suffix == ".jsonl":
        with open(path, encoding="utf-8") as stream:
            yield from map(json.loads, stream)
    else:
        import pyarrow.parquet as pq

        for batch in pq.ParquetFile(path).iter_batches():
            yield from batch.to_pylist()


def rank(sample: Sample) -> bytes:
    """What samples are chosen by: a hash of the prompt."""
    return hashlib.blake2b(sample.instruction.encode(), digest_size=8).digest()
