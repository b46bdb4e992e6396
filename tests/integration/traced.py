"""Trainings of which each step's samples are kept, and which can be killed: for the tests of resuming."""

import hashlib
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from transformers import TrainerCallback

from tests.integration.support import read_lines, train


class Break(TrainerCallback):
    """Breaks a run off, as Ctrl-C would, after a step and its checkpoint."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.global_step == self.step:
            raise KeyboardInterrupt


@dataclass(frozen=True)
class Trace:
    """What a run left: digests of the samples of each micro-batch it was trained on, its log and its weights."""

    folder: Path
    seen: list[list[str]]
    lines: list[dict[str, Any]]
    weights: dict[str, torch.Tensor]

    def steps(self, accumulation: int) -> list[list[str]]:
        """The samples of each step, in the order they were drawn."""
        starts = range(0, len(self.seen), accumulation)
        return [sum(self.seen[start : start + accumulation], []) for start in starts]

    def digest(self) -> str:
        """Of the weights."""
        return _digest(*(tensor for _, tensor in sorted(self.weights.items())))


def traced(values: dict[str, Any], *callbacks: Any, kill: Any = None) -> Trace:
    """Train in this process; `callbacks` may break the run off, or (`kill`) something else does."""
    from llamafactory_dids.training.trainer import MixingTrainerMixin

    original, seen, models = MixingTrainerMixin.compute_loss, [], []

    def watching(self: Any, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        if model.training:
            rows = zip(inputs["input_ids"], inputs["attention_mask"], strict=True)
            seen.append([_digest(ids[mask.bool()]) for ids, mask in rows])
        models[:] = [self.model]
        return original(self, model, inputs, *args, **kwargs)

    expected = pytest.raises(kill or KeyboardInterrupt) if callbacks or kill else nullcontext()
    with mock.patch.object(MixingTrainerMixin, "compute_loss", watching), expected:
        train(values, callbacks)
    folder = Path(values["output_dir"])
    weights = {name: tensor.clone() for name, tensor in models[0].state_dict().items()}
    return Trace(folder, seen, read_lines(folder / "dids" / "mixture.jsonl"), weights)


def _digest(*tensors: torch.Tensor) -> str:
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
