"""Build a tiny model for a folder of data: a tokenizer trained on it, and a Llama with random weights.

    python scripts/quickstart/build_model.py --data quickstart/data --output quickstart/model --seed 1
    python scripts/quickstart/build_model.py --data ../shared/data --datasets math_gsm8k,code_alpaca \
        --output saves/tiny --vocab-size 4000 --max-length 512

About 0.85M parameters in 4 decoder blocks: small enough to train on two CPU cores in a minute, and a complete
model folder that `AutoTokenizer` and `AutoModelForCausalLM` load offline. The seed changes the weights only.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
from transformers.utils import logging

PAD, BOS, EOS = "<pad>", "<s>", "</s>"


def samples(path: Path) -> Iterator[dict[str, str]]:
    """The alpaca-format samples of a JSON or parquet file."""
    if path.suffix == ".parquet":
        yield from pq.read_table(path, columns=["instruction", "input", "output"]).to_pylist()
    else:
        yield from json.loads(path.read_text(encoding="utf-8"))


def texts(folder: Path, datasets: list[str]) -> Iterator[str]:
    """Every text of the data sets (all of the folder's by default), in the words of the `default` template."""
    info = json.loads((folder / "dataset_info.json").read_text(encoding="utf-8"))
    for name in datasets or sorted(info):
        for sample in samples(folder / info[name]["file_name"]):
            yield f"Human: {sample['instruction']}"
            yield sample["input"] or ""
            yield "\nAssistant:"
            yield sample["output"]


def train_tokenizer(texts: Iterator[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
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
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token=PAD, bos_token=BOS, eos_token=EOS, model_max_length=max_length
    )


def build_llama(
    tokenizer: PreTrainedTokenizerFast,
    seed: int,
    *,
    hidden_size: int = 128,
    intermediate_size: int = 256,
    num_layers: int = 4,
    num_heads: int = 4,
) -> LlamaForCausalLM:
    """A Llama with random weights, a tiny one by default."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden_size,
        intermediate_size=intermediate_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_heads,
        max_position_embeddings=tokenizer.model_max_length,
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
    parser.add_argument("--datasets", default="", help="comma-separated; all that dataset_info.json has by default")
    parser.add_argument("--vocab-size", type=int, default=1500)
    parser.add_argument("--max-length", type=int, default=256, help="in tokens")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    names = [name for name in args.datasets.split(",") if name]
    tokenizer = train_tokenizer(texts(args.data, names), args.vocab_size, args.max_length)
    model = build_llama(tokenizer, args.seed)
    logging.disable_progress_bar()
    tokenizer.save_pretrained(args.output)
    model.save_pretrained(args.output)
    print(f"{model.num_parameters():,} parameters, {len(tokenizer)} tokens: {args.output}")


if __name__ == "__main__":
    main()
