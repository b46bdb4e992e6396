"""The data path: the host's own loading and tokenising, with each sample's source, key and domain kept.

aligned example ──(tagging)──▶ + key, source ──(keeping_tags)──▶ tokenised sample + key, source
                                              ──(mixing, plan/planning.py)──▶ + domain, and the plan for the trainer
"""

import functools
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

from datasets import concatenate_datasets

from ...config import MixingConfig
from ...errors import DidsError
from ...stages.cluster import check_enough
from ...training.collator import DOMAIN_COLUMN, KEY_COLUMN, SOURCE_COLUMN
from ..settings import settings_of
from . import mix_in
from .tags import TAGS, UNKNOWN, Tagger, lacking

# Where a `DataSource` (source.py) keeps the aligned examples while the host loads them. They cannot stand on
# the data arguments, since `datasets` hashes these, and sends them to its workers, with the host's processors.
aligned_examples: ContextVar[dict[str, Any] | None] = ContextVar("aligned_examples", default=None)


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
        if settings_of(data_args) is None or dataset_names is None:
            return host(dataset_names, model_args, data_args, training_args, stage, return_dict)
        key = next((k for k in ("dataset", "eval_dataset") if dataset_names is getattr(data_args, k)), "dids_tasks")
        read = functools.partial(_read, host, key, model_args, data_args, training_args, stage)
        parts = {name: read(name) for name in dataset_names}
        if key == "dataset":
            parts = {name: tagged(part, name, data_args, training_args) for name, part in parts.items()}
            parts = mix_in.cut(parts, data_args.mixing)
            _check_number(parts, data_args.mixing.config)
            if (kept := aligned_examples.get()) is not None:
                kept.update(parts)
            if lookup := getattr(data_args, "domain_lookup", None):
                parts = {name: lookup.ordered(part) for name, part in parts.items()}
        return parts if return_dict else concatenate_datasets(list(parts.values()))

    return merged


def _check_number(parts: dict[str, Any], config: MixingConfig) -> None:
    """Raise DidsError for more domains than there will be samples: an example makes one at most."""
    if config.dids_domains == "cluster":
        check_enough(config.dids_num_domains, sum(map(len, parts.values())))


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
        if settings_of(data_args) is None:
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
                first = indices[0]
                source, key = examples[SOURCE_COLUMN][first], examples[KEY_COLUMN][first]
                raise lacking(f"{len(indices)} training samples", source, key)
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
