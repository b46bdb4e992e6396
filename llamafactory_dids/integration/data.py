"""The data path: the host's own loading and tokenising, with each sample's source, key and domain kept.

aligned example ──(tagging)──▶ + key, source ──(keeping_tags)──▶ tokenised sample + key, source
                                              ──(mixing)──▶ + domain, and the plan for the trainer
"""

import copy
import functools
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from datasets import concatenate_datasets
from llamafactory.data import loader

from ..errors import DidsError
from ..training.collator import DOMAIN_COLUMN, KEY_COLUMN, SOURCE_COLUMN
from . import mix_in
from . import settings as run_settings
from .keys import Tagger
from .lookup import UNKNOWN
from .planning import make_plan
from .randomness import undisturbed

TAGS = (KEY_COLUMN, SOURCE_COLUMN)

# Where a DataSource keeps the aligned examples while the host loads them for it. They cannot stand on the data
# arguments, since `datasets` hashes these, and sends them to its workers, with the host's processors.
_aligned: ContextVar[dict[str, Any] | None] = ContextVar("aligned", default=None)


def tagging(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `_get_merged_dataset`; under a mixture of ours the training examples get their key and source."""

    @functools.wraps(host)
    def merged(
        dataset_names: Any,
        model_args: Any,
        data_args: Any,
        training_args: Any,
        stage: str,
        return_dict: bool = False,
    ) -> Any:
        if run_settings.of(data_args) is None or dataset_names is None:
            return host(dataset_names, model_args, data_args, training_args, stage, return_dict)
        key = next((k for k in ("dataset", "eval_dataset") if dataset_names is getattr(data_args, k)), "dids_tasks")
        read = functools.partial(_read, host, key, model_args, data_args, training_args, stage)
        parts = {name: read(name) for name in dataset_names}
        if key == "dataset":
            parts = {name: tagged(part, name, data_args, training_args) for name, part in parts.items()}
            parts = mix_in.cut(parts, data_args.mixing)
            if (kept := _aligned.get()) is not None:
                kept.update(parts)
            if lookup := getattr(data_args, "domain_lookup", None):
                parts = {name: lookup.ordered(part) for name, part in parts.items()}
        return parts if return_dict else concatenate_datasets(list(parts.values()))

    return merged


def _read(
    host: Callable[..., Any], key: str, model_args: Any, data_args: Any, training_args: Any, stage: str, name: str
) -> Any:
    """One dataset, loaded and aligned by the host. Raises DidsError where that fails, or nothing is in it."""
    try:
        dataset = host([name], model_args, data_args, training_args, stage, True)[name]
    except Exception as error:  # of the host or of `datasets`, for whatever is wrong with a file
        raise DidsError(
            f"{key}: {name!r} cannot be read ({error}); allowed: a dataset with at least one example, in the format "
            "that dataset_info.json gives"
        ) from error
    if len(dataset) == 0:
        raise DidsError(f"{key}: {name!r} has no examples, allowed: at least one")
    return dataset


def tagged(dataset: Any, source: str, data_args: Any, training_args: Any) -> Any:
    """An aligned dataset with the columns for key and source."""
    return dataset.map(
        Tagger(source),
        batched=True,
        num_proc=data_args.preprocessing_num_workers,
        load_from_cache_file=(not data_args.overwrite_cache) or (training_args.local_process_index != 0),
        desc=f"Keys of {source}",
    )


def keeping_tags(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `_get_dataset_processor`; what it makes keeps the tags of the rows that survive."""

    @functools.wraps(host)
    def processor(data_args: Any, *args: Any, **kwargs: Any) -> Any:
        inner = host(data_args, *args, **kwargs)
        if run_settings.of(data_args) is None:
            return inner
        return TagKeepingProcessor(inner, getattr(data_args, "domain_lookup", None))

    return processor


class TagKeepingProcessor:
    """A host processor that is fed so that each row it gives can be traced to its example.

    Unpacked, an example makes one row or none, so that only where rows are missing it has to be asked which: the whole
    batch goes in at once, since KTO takes an answer for its baseline from the example before. Packed (`lookup` is
    given), it is one domain at a time, so that each packed row belongs to one domain.
    """

    def __init__(self, inner: Any, lookup: Any) -> None:
        self.inner = inner
        self.lookup = lookup

    def preprocess_dataset(self, examples: dict[str, list[Any]]) -> dict[str, list[Any]]:
        """Batches of aligned examples in, tokenised rows with their tags out."""
        if KEY_COLUMN not in examples:
            return self.inner.preprocess_dataset(examples)  # type: ignore[no-any-return]
        if self.lookup is None:
            return self._traced(examples)
        rows: dict[str, list[Any]] = {}
        for indices, tags in self._groups(examples):
            part = self._rows(examples, indices)
            count = _num_rows(part)
            if count and tags.get(DOMAIN_COLUMN) == UNKNOWN:
                raise DidsError(
                    f"dids_domains: the map lacks {len(indices)} training samples, the first from "
                    f"{examples[SOURCE_COLUMN][indices[0]]!r}; allowed: a map made from this data"
                )
            for column, values in {**part, **{tag: [value] * count for tag, value in tags.items()}}.items():
                rows.setdefault(column, []).extend(values)
        return rows

    def _rows(self, examples: dict[str, list[Any]], indices: Sequence[int]) -> Any:
        """What the host's processor makes of some of the examples."""
        return self.inner.preprocess_dataset({k: [v[i] for i in indices] for k, v in examples.items() if k not in TAGS})

    def _traced(self, examples: dict[str, list[Any]]) -> dict[str, list[Any]]:
        everyone = range(len(examples[KEY_COLUMN]))
        rows = dict(self._rows(examples, everyone))
        kept: Sequence[int] = everyone
        if _num_rows(rows) < len(everyone):
            kept = [i for i in everyone if _num_rows(self._rows(examples, [i]))]
        if rows:
            rows |= {tag: [examples[tag][i] for i in kept] for tag in TAGS}
        return rows

    def _groups(self, examples: dict[str, list[Any]]) -> Any:
        keys, sources = examples[KEY_COLUMN], examples[SOURCE_COLUMN]
        groups: dict[int, list[int]] = {}
        for i, domain in enumerate(self.lookup.domains(sources, keys)):
            groups.setdefault(domain, []).append(i)
        for domain in sorted(groups):
            yield groups[domain], {DOMAIN_COLUMN: domain}

    def print_data_example(self, example: dict[str, Any]) -> None:
        """As the host shows the first example."""
        self.inner.print_data_example(example)


def _num_rows(rows: Mapping[str, list[Any]]) -> int:
    return len(next(iter(rows.values()), []))


def mixing(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `get_dataset` as a workflow calls it; under a mixture of ours it also gives the trainer a plan."""

    @functools.wraps(host)
    def get_dataset(
        template: Any,
        model_args: Any,
        data_args: Any,
        training_args: Any,
        stage: str,
        tokenizer: Any,
        processor: Any = None,
    ) -> Any:
        settings = run_settings.of(data_args)
        if settings is None or not training_args.do_train:
            return host(template, model_args, data_args, training_args, stage, tokenizer, processor)
        source = DataSource(host, template, model_args, data_args, training_args, stage, tokenizer, processor)
        return make_plan(settings, source)

    return get_dataset


class DataSource:
    """The host's data pipeline with a run's arguments, to be asked for the training set or for a task.

    `aligned` has the training examples by source, before they are tokenised.
    """

    def __init__(
        self,
        host: Callable[..., Any],
        template: Any,
        model_args: Any,
        data_args: Any,
        training_args: Any,
        stage: str,
        tokenizer: Any,
        processor: Any,
    ) -> None:
        self.host = host
        self.template = template
        self.model_args = model_args
        self.data_args = data_args
        self.training_args = training_args
        self.stage = stage
        self.tokenizer = tokenizer
        self.processor = processor
        self._aligned: dict[str, Any] = {}

    @property
    def aligned(self) -> dict[str, Any]:
        """The examples by source; loaded now if the training set came from `tokenized_path`."""
        if not self._aligned.keys() >= set(self.data_args.dataset):
            self.unpacked(self.template, self.tokenizer, self.processor)
        return self._aligned

    def without_training_set(self) -> "DataSource":
        """The same pipeline, to be asked for tasks alone: only their examples are `aligned`."""
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
        """Whether the training samples are read while it trains."""
        return bool(self.data_args.streaming)

    def module(self, lookup: Any = None) -> dict[str, Any]:
        """The host's dataset module; packed rows are made a domain at a time, by `lookup`."""
        data_args = copy.copy(self.data_args)
        data_args.domain_lookup = lookup
        return self._load(self.template, data_args, self.tokenizer, self.processor)

    def evaluation(self) -> dict[str, Any]:
        """The host's dataset module without a training set, its evaluation not streamed."""
        data_args = copy.copy(self.data_args)
        data_args.dataset, data_args.streaming = None, False
        return self._load(self.template, data_args, self.tokenizer, self.processor)

    @undisturbed
    def unpacked(self, template: Any, tokenizer: Any, processor: Any) -> Any:
        """The training samples one by one, as a proxy's tokenizer sees them, with key and source."""
        data_args = copy.copy(self.data_args)
        data_args.packing = data_args.neat_packing = False
        data_args.eval_dataset = data_args.tokenized_path = None
        return self._load(template, data_args, tokenizer, processor)["train_dataset"]

    def _load(self, template: Any, data_args: Any, tokenizer: Any, processor: Any) -> dict[str, Any]:
        token = _aligned.set(self._aligned)
        try:
            return self.host(  # type: ignore[no-any-return]
                template, self.model_args, data_args, self.training_args, self.stage, tokenizer, processor
            )
        finally:
            _aligned.reset(token)

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
        """A task's observed samples, tokenised by the model's own tokenizer or another; `choose` picks among the tagged
        examples. With `keep_tags` they keep key and source, and stand among the `aligned`.
        """
        data_args = copy.copy(self.data_args)
        data_args.packing = data_args.neat_packing = data_args.streaming = False
        data_args.max_samples = None
        local = not data_args.data_shared_file_system
        try:
            with self.training_args.main_process_first(desc=f"load task {name}", local=local):
                chosen = choose(self._tagged_task(name, data_args))
                if keep_tags:
                    self._aligned[name] = chosen
                else:
                    chosen = chosen.remove_columns(list(TAGS))
                reading = (template or self.template, tokenizer or self.tokenizer, processor or self.processor)
                return loader._get_preprocessed_dataset(
                    chosen, data_args, self.training_args, self.stage, *reading, is_eval=True
                )
        except DidsError:
            raise
        except Exception as error:  # of the host or of `datasets`, for whatever is wrong with a file
            raise DidsError(f"dids_tasks: {name!r} cannot be read as a {self.stage} task: {error}") from error

    def _tagged_task(self, name: str, data_args: Any) -> Any:
        parts = loader._get_merged_dataset([name], self.model_args, data_args, self.training_args, self.stage, True)
        return tagged(parts[name], name, data_args, self.training_args)
