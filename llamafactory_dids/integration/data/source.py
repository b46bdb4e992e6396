"""The host's data pipeline as an object for planning: it gives the training set, single samples, and tasks."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from llamafactory.data import loader
from numpy.typing import NDArray

from ...artifacts.domain_map import DomainMap
from ...artifacts.files import fingerprint
from ...artifacts.samples import Texts
from ...errors import DidsError, refuse
from ...training.clock import Clock
from ..host.quiet import quiet
from ..host.randomness import undisturbed
from ..settings import Settings
from . import saved
from .loading import Loading, at_hand, tagged
from .tags import TAGS

MEDIA = ("images", "videos", "audios")  # columns of a tokenised row without tokens


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
    processor: Any
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
        other = copy.copy(self)
        other.data_args = copy.copy(self.data_args)
        other.data_args.dataset = []
        other._aligned = {}
        return other

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
        data_args = copy.copy(self.data_args)
        data_args.dataset, data_args.streaming = None, False
        arguments = (self.template, self.model_args, data_args, self.training_args, self.stage)
        return self.host(*arguments, self.tokenizer, self.processor)  # type: ignore[no-any-return]

    @undisturbed
    def unpacked(self, template: Any, tokenizer: Any, processor: Any) -> Loaded:
        """The training samples one by one, tokenised with a proxy's tokenizer."""
        data_args = copy.copy(self.data_args)
        data_args.packing = data_args.neat_packing = False
        data_args.eval_dataset = data_args.tokenized_path = None
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
        data_args = copy.copy(self.data_args)
        data_args.packing = data_args.neat_packing = False
        made = loader._get_dataset_processor(data_args, self.stage, self.template, self.tokenizer, self.processor)
        rows = made.preprocess_dataset(examples[:])
        return fingerprint({name: rows[name] for name in sorted(rows) if name not in MEDIA})

    @undisturbed
    def task(
        self,
        name: str,
        choose: Callable[[Any], Any],
        *,
        template: Any = None,
        tokenizer: Any = None,
        processor: Any = None,
        keep_tags: bool = False,
    ) -> Any:
        """A task's observed samples, tokenised by the model's own tokenizer or another one. Raises DidsError for a
        broken task.

        `choose` picks among the tagged examples. With `keep_tags` the samples keep key and source, and join `aligned`.
        """
        data_args = copy.copy(self.data_args)
        data_args.packing = data_args.neat_packing = data_args.streaming = False
        data_args.max_samples = None
        training_args = copy.copy(self.training_args)
        training_args.predict_with_generate = False  # True would tokenise prompt and answer apart, for generation
        local = not data_args.data_shared_file_system
        try:
            with self.training_args.main_process_first(desc=f"load task {name}", local=local):
                if name not in self._observed:
                    with quiet():
                        self._observed[name] = choose(self._tagged_task(name, data_args))
                chosen = self._observed[name]
                if keep_tags:
                    self._aligned[name] = chosen
                else:
                    chosen = chosen.remove_columns(list(TAGS))
                reading = (template or self.template, tokenizer or self.tokenizer, processor or self.processor)
                with quiet():
                    return loader._get_preprocessed_dataset(
                        chosen, data_args, training_args, self.stage, *reading, is_eval=True
                    )
        except DidsError:
            raise
        except Exception as error:  # the host and `datasets` raise many kinds for a broken file
            raise DidsError(f"dids_tasks: {name!r} cannot be read as a {self.stage} task: {error}") from error

    def _tagged_task(self, name: str, data_args: Any) -> Any:
        parts = loader._get_merged_dataset([name], self.model_args, data_args, self.training_args, self.stage, True)
        return tagged(parts[name], name, data_args, self.training_args)
