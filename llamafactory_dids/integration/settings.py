"""What a run asked of us, settled before any data or model is loaded."""

from dataclasses import dataclass
from typing import Any

from ..config import MixingConfig


@dataclass(frozen=True)
class Settings:
    """The strategy, its keys, the observed tasks, and the run's arguments as they were given."""

    strategy: str
    config: MixingConfig
    tasks: tuple[str, ...]
    seed: int
    arguments: dict[str, Any]
    finetuning_args: Any


def of(data_args: Any) -> Settings | None:
    """The settings that `get_train_args` left on the host's data arguments; None where the host mixes."""
    return getattr(data_args, "mixing", None)
