"""A tiny Qwen2-VL with random weights, and pictures with texts about them, made on the spot."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from packaging import version
from PIL import Image
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    PreTrainedTokenizerFast,
    Qwen2TokenizerFast,
    Qwen2VLConfig,
    Qwen2VLForConditionalGeneration,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen2VLVideoProcessor,
)

OLD = version.parse(transformers.__version__).major < 5
SIZE = 56  # pixels a side: four tokens of the language model
END = "<|endoftext|>"
SPECIAL = [END, *(f"<|{name}|>" for name in ("im_start", "im_end", "vision_start", "vision_end"))]
SPECIAL += ["<|vision_pad|>", "<|image_pad|>", "<|video_pad|>"]
TEXTS = (("describe this.", "a picture"), ("what do you see?", "some lines and dots"))
SHAREGPT = {
    "formatting": "sharegpt",
    "columns": {"messages": "messages", "images": "images"},
    "tags": {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"},
}
RANKED = {"ranking": True, "columns": SHAREGPT["columns"] | {"chosen": "chosen", "rejected": "rejected"}}
FEEDBACK = {"columns": SHAREGPT["columns"] | {"kto_tag": "wanted"}}


def build_model(folder: Path, *, layers: int = 2) -> Path:
    """Model, tokenizer and processor; the language model has `layers` blocks, the vision tower three."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=SPECIAL, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator([" ".join(text) for text in TEXTS], trainer)
    # Before 5.0 the processor takes a tokenizer of its model's class alone, and the loss reads the outer vocabulary.
    kind = Qwen2TokenizerFast if OLD else PreTrainedTokenizerFast
    fast = kind(
        tokenizer_object=tokenizer, pad_token=END, eos_token="<|im_end|>", additional_special_tokens=SPECIAL[1:]
    )
    pixels = {"min_pixels": 28 * 28, "max_pixels": 112 * 112}
    Qwen2VLProcessor(
        Qwen2VLImageProcessor(**pixels), fast, Qwen2VLVideoProcessor(**pixels), chat_template="{{ messages }}"
    ).save_pretrained(folder)
    ids = {f"{name}_token_id": fast.convert_tokens_to_ids(f"<|{name}|>") for name in ("vision_start", "vision_end")}
    ids |= {f"{name}_token_id": fast.convert_tokens_to_ids(f"<|{name}_pad|>") for name in ("image", "video")}
    ids |= {"vocab_size": len(fast)} if OLD else {}
    text = {
        "vocab_size": len(fast),
        "hidden_size": 32,
        "intermediate_size": 64,
        "num_hidden_layers": layers,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "rope_scaling": {"type": "mrope", "mrope_section": [2, 3, 3]},
        "bos_token_id": 0,
        "eos_token_id": 2,
        "pad_token_id": 0,
    }
    vision = {"depth": 3, "embed_dim": 32, "hidden_size": 32, "num_heads": 2, "mlp_ratio": 2}
    torch.manual_seed(0)
    config = Qwen2VLConfig(text_config=text, vision_config=vision, tie_word_embeddings=False, **ids)
    Qwen2VLForConditionalGeneration(config).save_pretrained(folder)
    return folder


def picture(number: int, *, bright: bool) -> Image.Image:
    """A picture of random dots, dark or bright as a whole."""
    dots = np.random.default_rng(number).integers(0, 80, (SIZE, SIZE, 3))
    return Image.fromarray((dots + 170 * bright).astype(np.uint8))


def is_bright(number: int) -> bool:
    """Every other picture of `rows`; the texts change after two pictures."""
    return number % 2 == 1


def rows(count: int, first: int = 0) -> list[dict[str, Any]]:
    """Chats about pictures, each of another picture: two texts, each of dark and bright ones alike."""
    found = []
    for number in range(first, first + count):
        question, answer = TEXTS[number // 2 % 2]
        messages = [{"role": "user", "content": f"<image>{question}"}, {"role": "assistant", "content": answer}]
        found.append({"messages": messages, "images": [picture(number, bright=is_bright(number))]})
    return found


def text_rows(count: int) -> list[dict[str, Any]]:
    """Chats of the same form without a picture, about something else."""
    chats = []
    for number in range(count):
        question, answer = f"add {number} and 3", str(number + 3)
        messages = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
        chats.append({"messages": messages, "images": []})
    return chats


def pairs(chats: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The chats with two answers each."""
    answers = {"chosen": {"role": "assistant", "content": "a"}, "rejected": {"role": "assistant", "content": "dots"}}
    return [{"messages": row["messages"][:1], "images": row["images"], **answers} for row in chats]


def judged(chats: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The chats, each second answer not wanted."""
    return [{**row, "wanted": number % 2 == 0} for number, row in enumerate(chats)]


def write_paths(data: Path, name: str, chats: list[dict[str, Any]], **info: Any) -> None:
    """A data set that names its pictures' files."""
    (data / name).mkdir(parents=True)
    for number, row in enumerate(chats):
        for image in row["images"]:
            image.save(data / name / f"{number}.png")
    named = [{**row, "images": [f"{name}/{i}.png" for _ in row["images"]]} for i, row in enumerate(chats)]
    (data / f"{name}.json").write_text(json.dumps(named))
    _enter(data, name, f"{name}.json", info)


def write_parquet(data: Path, name: str, chats: list[dict[str, Any]], kind: str = "PNG", **info: Any) -> None:
    """A data set that holds its pictures, as those of the hub do."""
    from datasets import Dataset, Features, Sequence, Value
    from datasets import Image as ImageFeature

    def held(image: Image.Image) -> dict[str, Any]:
        stream = io.BytesIO()
        image.save(stream, kind)
        return {"bytes": stream.getvalue(), "path": None}

    message = [{"role": Value("string"), "content": Value("string")}]
    features = Features({"messages": message, "images": Sequence(ImageFeature())})
    held_rows = [{**row, "images": [held(image) for image in row["images"]]} for row in chats]
    data.mkdir(parents=True, exist_ok=True)
    Dataset.from_list(held_rows, features=features).to_parquet(data / f"{name}.parquet")
    _enter(data, name, f"{name}.parquet", info)


def _enter(data: Path, name: str, file: str, info: dict[str, Any]) -> None:
    path = data / "dataset_info.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(known | {name: {"file_name": file, **SHAREGPT, **info}}))


def write_videos(data: Path, name: str, count: int) -> None:
    """A data set of videos, each the paths of two pictures."""
    (data / name).mkdir(parents=True)
    chats = []
    for number in range(count):
        frames = [f"{name}/{number}_{frame}.png" for frame in range(2)]
        for frame, path in enumerate(frames):
            picture(1000 + 2 * number + frame, bright=is_bright(number)).save(data / path)
        question, answer = TEXTS[0]
        messages = [{"role": "user", "content": f"<video>{question}"}, {"role": "assistant", "content": answer}]
        chats.append({"messages": messages, "videos": [frames]})
    (data / f"{name}.json").write_text(json.dumps(chats))
    _enter(data, name, f"{name}.json", {"columns": {"messages": "messages", "videos": "videos"}})
