"""The host's data pipeline as an object for planning: it gives the training set, single samples, and tasks."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from llamafactory.data import loader
from numpy.typing import NDArray

from ...artifacts.domain_map import DomainMap
from ...artifacts.files import fingerprint
from ...artifacts.samples import Texts, column
from ...errors import DidsError, refuse
from ...training.clock import Clock
from ...training.collator import KEY_COLUMN
from ..host.quiet import quiet
from ..host.randomness import undisturbed_randomness
from ..settings import Settings, with_changes
from . import saved
from .loading import Loading, at_hand, tagged
from .tags import TAGS, content_order

MEDIA = ("images", "videos", "audios")  # columns of a tokenised row without tokens
UNPACKED = {"packing": False, "neat_packing": False}  # data arguments for samples one by one


class Loaded(NamedTuple):
    """The host's dataset module with its own training rows, and the tags of each row: columns for key and source, or
    for the domain if the rows are packed.
    """

    module: dict[str, Any]
    tags: pa.Table


@dataclass(eq=False)
class DataSource:
    """The host's data pipeline with a run's settings and arguments. It loads the training set or a task on request.

    `aligned` has the training examples by source, before tokenising. `clock` counts the time for making domains. `kept`
    has objects that are loaded once and used twice.
    """

    settings: Settings
    host: Callable[..., Any]
    template: Any
    model_args: Any
    data_args: Any
    training_args: Any
    stage: str
    tokenizer: Any
    processor: Any = None
    clock: Clock = field(default_factory=Clock)
    kept: dict[str, Any] = field(default_factory=dict)
    _aligned: dict[str, Any] = field(default_factory=dict)
    _observed: dict[str, Any] = field(default_factory=dict)

    @property
    def aligned(self) -> dict[str, Any]:
        """The examples by source. They are loaded now if the training set came from `tokenized_path`."""
        if not self._aligned.keys() >= set(self.data_args.dataset):
            self.unpacked(self.template, self.tokenizer, self.processor)
        return self._aligned

    def without_training_set(self) -> "DataSource":
        """The same pipeline for tasks alone: `aligned` has only their examples."""
        return replace(self, data_args=with_changes(self.data_args, dataset=[]), _aligned={})

    @property
    def packs(self) -> bool:
        """Whether the host joins several examples into one training row."""
        return bool(self.data_args.packing)

    @property
    def streams(self) -> bool:
        """Whether training samples are read from streams."""
        return bool(self.data_args.streaming)

    def training_set(self, domains_of: Callable[[Texts, Texts], NDArray[np.int64]] | None = None) -> Loaded:
        """The training set. Packed rows are made a domain at a time, with the domains by `domains_of`."""
        return self._load(self.template, self.data_args, self.tokenizer, self.processor, domains_of)

    def evaluation(self) -> dict[str, Any]:
        """The host's dataset module without a training set. Evaluation data is not streamed."""
        data_args = with_changes(self.data_args, dataset=None, streaming=False)
        arguments = (self.template, self.model_args, data_args, self.training_args, self.stage)
        return self.host(*arguments, self.tokenizer, self.processor)  # type: ignore[no-any-return]

    @undisturbed_randomness()
    def unpacked(self, template: Any, tokenizer: Any, processor: Any) -> Loaded:
        """The training samples one by one, tokenised with a proxy's tokenizer."""
        data_args = with_changes(self.data_args, **UNPACKED, eval_dataset=None, tokenized_path=None)
        with quiet():
            return self._load(template, data_args, tokenizer, processor)

    def _load(self, template: Any, data_args: Any, tokenizer: Any, processor: Any, domains_of: Any = None) -> Loaded:
        loading = Loading(self._aligned, domains_of)
        token = at_hand.set(loading)
        try:
            arguments = (template, self.model_args, data_args, self.training_args, self.stage)
            module = self.host(*arguments, tokenizer, processor)
        except ValueError as error:
            if "test_size" not in str(error):  # of datasets' split
                raise
            raise refuse("val_size", data_args.val_size, "fewer than the training samples") from error
        finally:
            at_hand.reset(token)
        path, num_rows = data_args.tokenized_path, len(module["train_dataset"])
        return Loaded(module, saved.beside(path, loading.tags, num_rows, self.training_args.should_save))

    def settle_saved(self, domain_map: DomainMap) -> None:
        """Compare the data at `tokenized_path` with this run's, or write a note of its origin."""
        few = {name: self._aligned[name] for name in self.data_args.dataset if name in self._aligned}
        saved.settle_note(self.data_args, self.stage, self.tokenizer, few, self._tokens_of, domain_map)

    def _tokens_of(self, examples: Any) -> str:
        """A digest of the tokens and labels that the host makes of aligned examples, unpacked."""
        data_args = with_changes(self.data_args, **UNPACKED)
        made = loader._get_dataset_processor(data_args, self.stage, self.template, self.tokenizer, self.processor)
        rows = made.preprocess_dataset(examples[:])
        return fingerprint({name: rows[name] for name in sorted(rows) if name not in MEDIA})

    @undisturbed_randomness()
    def task(self, name: str, *, keep_tags: bool = False, **reading: Any) -> Any:
        """A task's observed samples, tokenised as the model reads them. Raises DidsError for a broken task.

        `reading` may give another template, tokenizer and processor. With `keep_tags` the samples keep key and source,
        and join `aligned`.
        """
        data_args = with_changes(self.data_args, **UNPACKED, streaming=False, max_samples=None)
        # with predict_with_generate, prompt and answer would be tokenised apart, for generation
        training_args = with_changes(self.training_args, predict_with_generate=False)
        own = {"template": self.template, "tokenizer": self.tokenizer, "processor": self.processor}
        local = not data_args.data_shared_file_system
        try:
            with self.training_args.main_process_first(desc=f"load task {name}", local=local):
                if name not in self._observed:
                    with quiet():
                        self._observed[name] = self._examples_of_task(name, data_args)
                chosen = self._observed[name]
                if keep_tags:
                    self._aligned[name] = chosen
                else:
                    chosen = chosen.remove_columns(list(TAGS))
                with quiet():
                    return loader._get_preprocessed_dataset(
                        chosen, data_args, training_args, self.stage, **(own | reading), is_eval=True
                    )
        except DidsError:
            raise
        except Exception as error:  # the host and `datasets` raise many kinds for a broken file
            raise DidsError(f"dids_tasks: {name!r} cannot be read as a {self.stage} task: {error}") from error

    def _examples_of_task(self, name: str, data_args: Any) -> Any:
        """`dids_task_samples` tagged examples, picked by a seeded hash of their content, whatever their order."""
        parts = loader._get_merged_dataset([name], self.model_args, data_args, self.training_args, self.stage, True)
        dataset = tagged(parts[name], name, data_args, self.training_args)
        order = content_order(column(dataset, KEY_COLUMN).to_pylist(), self.settings.seed)
        return dataset.select(order[: self.settings.config.dids_task_samples])
