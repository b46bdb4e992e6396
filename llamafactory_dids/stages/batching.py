"""Batches of samples of similar length, the same for any number of workers."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

Collate = Callable[[list[dict[str, Any]]], Mapping[str, Any]]


def length_batches(lengths: Sequence[int], max_samples: int, max_tokens: int) -> list[list[int]]:
    """Indices in batches of at most `max_samples` and `max_tokens` with padding. A longer sample is a batch alone."""
    batches: list[list[int]] = []
    for index in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        # sorted from long to short, so the first sample of a batch has its width
        current = batches[-1] if batches else None
        if current and len(current) < max_samples and (len(current) + 1) * lengths[current[0]] <= max_tokens:
            current.append(index)
        else:
            batches.append([index])
    return batches


def num_tokens(row: Mapping[str, Any]) -> int:
    """The tokens that a sample takes in a batch: its longest view times its number of views (a pair has two)."""
    views = [len(value) for key, value in row.items() if is_tokens(key)]
    return max(views) * len(views)


def is_tokens(column: str) -> bool:
    """Whether a column holds the tokens of a view: `input_ids`, `chosen_input_ids`, `kl_input_ids`."""
    return column.endswith("input_ids")


def pad_collate(pad_id: int) -> Collate:
    """A collator for `input_ids` and `labels`. Without labels, all tokens are labelled."""

    def collate(samples: list[dict[str, Any]]) -> dict[str, Tensor]:
        width = max(len(sample["input_ids"]) for sample in samples)
        ids = torch.full((len(samples), width), pad_id, dtype=torch.long)
        mask = torch.zeros_like(ids)
        labels = torch.full_like(ids, -100)
        for i, sample in enumerate(samples):
            count = len(sample["input_ids"])
            ids[i, :count] = torch.tensor(sample["input_ids"])
            mask[i, :count] = 1
            labels[i, :count] = torch.tensor(sample.get("labels") or sample["input_ids"])
        return {"input_ids": ids, "attention_mask": mask, "labels": labels}

    return collate


def to_device(batch: Mapping[str, Any], device: torch.device) -> dict[str, Any]:
    """The batch with its tensors on `device`, nested batches included."""

    def moved(value: Any) -> Any:
        if isinstance(value, Mapping):
            return to_device(value, device)
        if isinstance(value, list | tuple):
            return type(value)(map(moved, value))
        return value.to(device) if isinstance(value, Tensor) else value

    return {key: moved(value) for key, value in batch.items()}
