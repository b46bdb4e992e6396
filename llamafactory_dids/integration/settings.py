"""What a run asked of us, settled before any data or model is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import MixingConfig
from ..mixers.base import Needs, RunRecord


@dataclass(frozen=True)
class ProxyHistory:
    """What the proxy runs so far left: their records, and the folder of the last one that kept its token losses."""

    records: tuple[RunRecord, ...] = ()
    reference: Path | None = None


@dataclass(frozen=True)
class Settings:
    """The strategy, its keys and needs, the observed tasks, and the run's arguments as they were given (a YAML file's
    values, or words of a command line).

    `history` is given to a proxy run: what came before it. The main run has none, and makes what its strategy asks for.
    """

    strategy: str
    config: MixingConfig
    needs: Needs
    tasks: tuple[str, ...]
    seed: int
    arguments: dict[str, Any]
    as_words: bool
    finetuning_args: Any
    history: ProxyHistory | None = None


def cache_folder(config: MixingConfig) -> Path:
    """`dids_cache_dir`, absolute."""
    return Path(config.dids_cache_dir).expanduser().absolute()


def settings_of(data_args: Any) -> Settings | None:
    """The settings that `get_train_args` left on the host's data arguments; None where the host mixes."""
    return getattr(data_args, "mixing", None)
