"""Tiny models and tiny samples, made on the spot."""

import functools
import json
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from llamafactory_dids.artifacts.domain_map import DomainMap
from llamafactory_dids.stages.batching import pad_collate
from llamafactory_dids.stages.losses import LanguageModelling

VOCAB = 48
PATIENCE = float(os.environ.get("DIDS_TEST_PATIENCE", "1"))  # how much longer a subprocess may take, on a busy machine
collate = pad_collate(0)
NEXT_TOKENS = LanguageModelling()

_EXPERTS = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24, "decoder_sparse_step": 1}
FAMILIES = {
    "llama": ("LlamaConfig", {}),
    "mistral": ("MistralConfig", {"sliding_window": 5}),
    "qwen2": ("Qwen2Config", {}),
    "qwen3": ("Qwen3Config", {"head_dim": 8}),
    "gemma2": ("Gemma2Config", {"head_dim": 8, "query_pre_attn_scalar": 8}),
    "gemma3": ("Gemma3TextConfig", {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 5}),
    "phi3": ("Phi3Config", {"bos_token_id": 1, "eos_token_id": 1}),
    "mixtral": ("MixtralConfig", {"num_local_experts": 4, "num_experts_per_tok": 2}),
    "qwen2_moe": ("Qwen2MoeConfig", {**_EXPERTS, "shared_expert_intermediate_size": 16}),
    "qwen3_moe": ("Qwen3MoeConfig", {**_EXPERTS, "head_dim": 8}),
}
MIXTURES = ["mixtral", "qwen2_moe", "qwen3_moe"]
_SIZES = {"hidden_size": 32, "intermediate_size": 40, "num_attention_heads": 4, "num_key_value_heads": 2}


def edit(path: Path, **words: str) -> None:
    """Change words in a file of ours as a person would, who takes its checksums away."""
    text = re.sub(r',\s*"(digest|domains.parquet)": "\w+"', "", path.read_text())
    path.write_text(functools.reduce(lambda edited, word: edited.replace(word, words[word]), words, text))


def rows_of_map(domain_map: DomainMap, rows: slice) -> DomainMap:
    """A map that lost samples; a domain may be left without any."""
    return domain_map._subset(np.arange(len(domain_map.domains_N))[rows], range(len(domain_map.names)))


def tiny_model(family: str = "llama", num_blocks: int = 4, seed: int = 0, vocab_size: int = VOCAB) -> Any:
    """A random model in fp32 and eval mode: gpt2 (Conv1D), or one of `FAMILIES` (nn.Linear)."""
    import transformers

    common = {"vocab_size": vocab_size, "max_position_embeddings": 64, "pad_token_id": 0}
    if family == "gpt2":
        sizes = {"n_positions": 64, "n_embd": 32, "n_head": 4, "n_layer": num_blocks}
        no_dropout = {"embd_pdrop": 0.0, "resid_pdrop": 0.0, "attn_pdrop": 0.0}
        config = transformers.GPT2Config(vocab_size=vocab_size, bos_token_id=1, eos_token_id=1, **sizes, **no_dropout)
    else:
        make, more = FAMILIES[family]
        config = getattr(transformers, make)(num_hidden_layers=num_blocks, **common, **{**_SIZES, **more})
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config).float().eval()
    for weight in model.parameters():
        weight.data.mul_(3)  # larger than usual, so that gradients are far from rounding
    return model


LORA = {
    "plain": {},
    "dora": {"use_dora": True},
    "rslora": {"use_rslora": True},
    "pissa": {"init_lora_weights": "pissa"},
    "whole_layers": {"modules_to_save": ["o_proj", "lm_head"]},
}


def with_lora(model: Any, seed: int = 0, **options: Any) -> Any:
    """The model with LoRA adapters on two kinds of layers, B not zero; `options` are those of peft's `LoraConfig`."""
    import peft

    torch.manual_seed(seed)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=4, target_modules=["q_proj", "down_proj"], **options))
    for name, weight in adapted.named_parameters():
        if "lora_B" in name:
            weight.data.normal_(0, 0.1)
    return adapted.eval()


def samples(count: int, seed: int = 0, longest: int = 14) -> list[dict[str, list[int]]]:
    """`count` random samples of different lengths, each with a prompt that is not learned."""
    generator = torch.Generator().manual_seed(seed)
    made = []
    for _ in range(count):
        length = int(torch.randint(4, longest + 1, (), generator=generator))
        prompt = int(torch.randint(1, length - 1, (), generator=generator))
        ids = torch.randint(1, VOCAB, (length,), generator=generator).tolist()
        made.append({"input_ids": ids, "labels": [-100] * prompt + ids[prompt:]})
    return made


def unlabelled(length: int = 6) -> dict[str, list[int]]:
    """A sample of which nothing is learned."""
    return {"input_ids": list(range(1, length + 1)), "labels": [-100] * length}


def num_labelled(rows: Sequence[dict[str, list[int]]]) -> torch.Tensor:
    """Tokens of each sample that the loss counts."""
    return torch.tensor([sum(label != -100 for label in row["labels"][1:]) for row in rows])


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Of two gradients, flat, in float64."""
    a, b = a.double().flatten(), b.double().flatten()
    return float(a @ b / (a.norm() * b.norm()))


def write_lines(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """A file of JSON, a row a line."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
