"""What the benchmarks of trainings share: a model with a token a made-up word, and the keys of its runs."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

MARKS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}


def words(count: int) -> list[str]:
    """So many words."""
    return [f"w{i}" for i in range(count)]


def save_model(folder: Path, num_words: int, config: LlamaConfig) -> None:
    """A model of that shape with random weights, and a tokenizer that has a token a word."""
    vocabulary = {word: i for i, word in enumerate([*MARKS.values(), *words(num_words)])}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token=MARKS["unk_token"]))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    PreTrainedTokenizerFast(tokenizer_object=backend, **MARKS).save_pretrained(folder / "model")
    torch.manual_seed(0)
    LlamaForCausalLM(config).save_pretrained(folder / "model")


def keys(folder: Path, candidate: str, sources: Sequence[str]) -> dict[str, Any]:
    """The training arguments that all candidates share: the model and the data of a folder."""
    return {
        "model_name_or_path": str(folder / "model"),
        "stage": "sft",
        "do_train": True,
        "finetuning_type": "full",
        "dataset_dir": str(folder / "data"),
        "dataset": ",".join(sources),
        "template": "empty",
        "output_dir": str(folder / candidate.replace(" ", "_")),
        "report_to": "none",
        "seed": 1,
    }
