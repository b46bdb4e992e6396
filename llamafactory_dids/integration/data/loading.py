"""The data path: the host's own loading and tokenising, which keeps each sample's source, key and domain.

aligned example ──(tagging)──▶ + key, source ──(tokenising)──▶ the host's row; beside it, its key and source or domain
  ──(mixing, plan/planning.py)──▶ + domain, and the plan for the trainer
"""

import functools
from collections.abc import Callable
from contextlib import nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import concatenate_datasets
from numpy.typing import NDArray

from ...artifacts.samples import Texts, column, texts
from ...config import MixingConfig
from ...errors import DidsError
from ...stages.bar import progress
from ...stages.cluster import check_enough
from ...text import beginning, one_line
from ...training.collator import COLUMNS, DOMAIN_COLUMN, KEY_COLUMN, SOURCE_COLUMN
from ..host.quiet import quiet
from ..settings import settings_of
from .reading import read
from .tags import TAGS, Tagger, are_texts


@dataclass
class Loading:
    """The inputs of a `DataSource` (source.py) to the host's loading of a training set, and its results.

    `aligned` has the tagged examples by source. They are read once, since the host may draw others the next time.
    `domains_of` maps samples (by sources and keys) to domains, if rows are packed. `tags` are the tags of the host's
    rows: key and source, or the domain if packed; None if the host made no rows.
    """

    aligned: dict[str, Any]
    domains_of: Callable[[Texts, Texts], NDArray[np.int64]] | None = None
    tags: pa.Table | None = None


# Not an attribute of the data arguments, which `datasets` hashes, and sends to its workers with the processors.
at_hand: ContextVar[Loading | None] = ContextVar("loading", default=None)


counting: ContextVar[bool] = ContextVar("counting", default=False)


def aligning(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `align_dataset`, which reads every example. When examples are only counted, it is skipped."""

    @functools.wraps(host)
    def align_dataset(dataset: Any, *args: Any, **kwargs: Any) -> Any:
        return dataset if counting.get() else host(dataset, *args, **kwargs)

    return align_dataset


def tagging(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `_get_merged_dataset`. With a mixture of ours, the training examples get their key and source."""

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
        arguments = (model_args, data_args, training_args, stage)
        if counting.get():
            return {name: read(host, key, name, *arguments, aligned=False) for name in dataset_names}
        loading = at_hand.get() or Loading({})
        if key == "dataset" and loading.aligned.keys() >= set(dataset_names):
            parts = {name: loading.aligned[name] for name in dataset_names}
        else:
            parts = {}
            show = progress("loading", len(dataset_names), of="dataset") if key != "dids_tasks" else nullcontext(None)
            with show as advance:
                for name in dataset_names:
                    with quiet():
                        parts[name] = read(host, key, name, *arguments)
                        if key == "dataset":
                            parts[name] = tagged(parts[name], name, data_args, training_args)
                    if advance:
                        advance(1)
            if key == "dataset":
                _check_number(parts, data_args.mixing.config)
                loading.aligned.update(parts)
        return parts if return_dict else _joined(key, parts)

    return merged


def _check_number(parts: dict[str, Any], config: MixingConfig) -> None:
    """Raise DidsError for more domains than samples. An example makes at most one sample."""
    if config.dids_domains == "cluster" and config.dids_num_domains is not None:
        check_enough(config.dids_num_domains, sum(map(len, parts.values())))


def _joined(key: str, parts: dict[str, Any]) -> Any:
    first, *others = parts
    try:
        return concatenate_datasets(list(parts.values()))
    except (ValueError, TypeError, pa.ArrowException) as error:
        unlike = next((name for name in others if parts[name].features != parts[first].features), others[-1])
        raise DidsError(
            f"{key}: {unlike!r} cannot be joined to {first!r} ({beginning(one_line(str(error)), 200)}); allowed: "
            "datasets whose prompts and responses are texts"
        ) from error


def tagged(dataset: Any, source: str, data_args: Any, training_args: Any) -> Any:
    """An aligned dataset with columns for key and source.

    They are joined to the other columns, which `map` would write again: a decoded JPEG loses quality each time.
    """
    tagger = Tagger(source)
    in_columns = are_texts(dataset.features.arrow_schema)
    tags = dataset.with_format("arrow" if in_columns else None).map(
        tagger.of_columns if in_columns else tagger,
        batched=True,
        batch_size=data_args.preprocessing_batch_size,
        remove_columns=dataset.column_names,
        num_proc=data_args.preprocessing_num_workers,
        load_from_cache_file=(not data_args.overwrite_cache) or (training_args.local_process_index != 0),
        desc=f"Keys of {source}",
    )
    return concatenate_datasets([dataset, tags.with_format(None)], axis=1)


def tokenising(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `_get_preprocessed_dataset`. A training set gives the host's own rows, and their tags beside."""

    @functools.wraps(host)
    def preprocessed(dataset: Any, *args: Any, is_eval: bool = False, **kwargs: Any) -> Any:
        loading = at_hand.get()
        if loading is None or dataset is None or KEY_COLUMN not in dataset.column_names:
            return host(dataset, *args, is_eval=is_eval, **kwargs)
        if is_eval:  # rows that `val_size` holds out
            return host(dataset.remove_columns(list(TAGS)), *args, is_eval=True, **kwargs)
        if loading.domains_of is not None:
            dataset = _by_domain(dataset, loading.domains_of)
        rows = _rows(host, dataset, *args, **kwargs)
        tags = [name for name in COLUMNS if name in rows.column_names]
        loading.tags = rows.select_columns(tags).with_format("arrow")[:]
        return rows.remove_columns(tags)

    return preprocessed


def _rows(host: Callable[..., Any], dataset: Any, data_args: Any, *args: Any, **kwargs: Any) -> Any:
    """The host's rows. Raises DidsError if there are none, also on ranks where the host would not notice."""
    try:
        rows = host(dataset, data_args, *args, is_eval=False, **kwargs)
    except RuntimeError as error:
        if "Cannot find" not in str(error):
            raise
        rows = ()
    if len(rows) == 0:
        raise DidsError(
            f"dataset: none of the {len(dataset)} examples of {', '.join(data_args.dataset)} makes a training row; "
            "allowed: examples in the format of the stage, with more than one token"
        )
    return rows


def _by_domain(dataset: Any, domains_of: Callable[[Texts, Texts], NDArray[np.int64]]) -> Any:
    """The examples with a domain column, sorted by domain."""
    domains_N = domains_of(texts(column(dataset, SOURCE_COLUMN)), texts(column(dataset, KEY_COLUMN)))
    return dataset.add_column(DOMAIN_COLUMN, domains_N).select(np.argsort(domains_N, kind="stable"))
