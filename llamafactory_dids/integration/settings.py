"""The requests of a run to this package, settled before any data or model is loaded."""

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..config import MixingConfig
from ..mixers.base import Needs, RunRecord


@dataclass(frozen=True)
class ProxyHistory:
    """The results of the proxy runs so far: their records, and the folder of the last run that kept token losses."""

    records: tuple[RunRecord, ...] = ()
    reference: Path | None = None


@dataclass(frozen=True)
class Settings:
    """The strategy, its keys and needs, the observed tasks, and the run's arguments as given.

    The arguments are a YAML file's values, or words of a command line (`as_words`). Only a proxy run has a `history`,
    the earlier proxy runs; the main run makes the proxy runs that its strategy asks for.
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

    @property
    def makes_features(self) -> bool:
        """Whether features of samples are computed: to cluster them, or to compare them with the tasks' samples."""
        return self.config.dids_domains == "cluster" or self.needs.task_samples

    @property
    def loads_proxy(self) -> bool:
        """Whether a proxy model is loaded: for its gradients, or to be trained."""
        takes_gradients = self.makes_features and self.config.dids_cluster_features == "gradient"
        return takes_gradients or self.needs.proxy_run is not None


def cache_folder(config: MixingConfig) -> Path:
    """`dids_cache_dir` as an absolute path."""
    return Path(config.dids_cache_dir).expanduser().absolute()


def with_changes(arguments: Any, **changes: Any) -> Any:
    """A copy of the host's arguments, or of another object of the host's, with other values of some attributes."""
    changed = copy.copy(arguments)
    for name, value in changes.items():
        setattr(changed, name, value)
    return changed


def settings_of(data_args: Any) -> Settings | None:
    """The settings that `get_train_args` stored on the host's data arguments; None if the host mixes."""
    return getattr(data_args, "mixing", None)
