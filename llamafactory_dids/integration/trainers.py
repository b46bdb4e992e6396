"""Trainers of the host that mix where they are given a plan."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from ..training.trainer import MixingTrainerMixin


def mixing_trainer(host: type) -> Callable[..., Any]:
    """The host's trainer class, with the mixin in front when there is a `mixing` plan among the arguments."""
    mixed = type(f"Mixing{host.__name__}", (MixingTrainerMixin, host), {})

    @functools.wraps(host, updated=())
    def make(*args: Any, **kwargs: Any) -> Any:
        plan = kwargs.get("mixing")
        if plan is None:
            return host(*args, **kwargs)
        kwargs["callbacks"] = [*(kwargs.get("callbacks") or []), PictureCallback(plan.folder)]
        return mixed(*args, **kwargs)

    return make


class PictureCallback(TrainerCallback):  # type: ignore[misc]
    """Draws the pictures when the training ends."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        if state.is_world_process_zero:
            from ..report.pictures import draw_pictures

            draw_pictures(self.folder)
