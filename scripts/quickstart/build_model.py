"""Build the quickstart's model: a tokenizer trained on the data, and a tiny Llama with random weights.

    python scripts/quickstart/build_model.py --data quickstart/data --output quickstart/model --seed 1

About 0.85M parameters in 4 decoder blocks: small enough to train on two CPU cores in a minute, and a complete
model folder that `AutoTokenizer` and `AutoModelForCausalLM` load offline. The seed changes the weights only.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

PAD, BOS, EOS = "<pad>", "<s>", "</s>"


def texts(folder: Path) -> Iterator[str]:
    """Every text of the data set, in the words of LLaMA-Factory's `default` template."""
    for name in sorted(json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))):
        for sample in json.loads((folder / f"{name}.json").read_text(encoding="utf-8")):
            yield f"Human: {sample['instruction']}"
            yield sample["input"]
            yield "\nAssistant:"
            yield sample["output"]


def train_tokenizer(folder: Path, vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer.

    `add_prefix_space` because LLaMA-Factory encodes an answer apart from its prompt: without it an answer's
    first word would be another token than the same word inside a sentence.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, BOS, EOS],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts(folder), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS, model_max_length=256
    )


def build_llama(tokenizer: PreTrainedTokenizerFast, seed: int) -> LlamaForCausalLM:
    """A tiny Llama with random weights."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return LlamaForCausalLM(config)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=Path("quickstart/data"))
    parser.add_argument("--output", type=Path, default=Path("quickstart/model"))
    parser.add_argument("--vocab-size", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    tokenizer = train_tokenizer(args.data, args.vocab_size)
    model = build_llama(tokenizer, args.seed)
    logging.disable_progress_bar()
    tokenizer.save_pretrained(args.output)
    model.save_pretrained(args.output)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens: {args.output}")


if __name__ == "__main__":
    main()
