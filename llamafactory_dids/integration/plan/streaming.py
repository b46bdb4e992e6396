"""`streaming: true`: the host's streams of aligned examples, one data set at a time, become streams of domains.

Clustering needs all samples, so the domains are the data sets, or the domains of a map made before. An example finds
its domain in the map by source and content key.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from llamafactory.data import loader

from ...artifacts.domain_map import BY_SOURCE, DomainMap
from ...errors import DidsError, refuse
from ...training.collator import KEY_COLUMN
from ...training.streams import DomainStream, StreamedRows
from ..data.source import DataSource
from ..data.tags import Tagger, lacking
from ..domains.making import given_map
from ..settings import with_changes

READ = 64  # examples read at a time

Example = dict[str, Any]


def streamed(source: DataSource) -> tuple[dict[str, Any], DomainMap]:
    """The host's dataset module with `StreamedRows` as its training set, and the map of their domains.

    The map is a given one, cut to the run's data sets. If the domains are the data sets, the map has no samples.
    """
    settings, names = source.settings, source.data_args.dataset
    streams = {name: _aligned(source, name) for name in names}
    tokenise = _tokeniser(source)
    if settings.config.dids_domains == "source":
        domain_map = DomainMap(tuple(names), [], [], np.zeros(0, dtype=np.int64), inputs=BY_SOURCE)
        readers = [_Reader(((name, streams[name]),)) for name in names]
    else:
        domain_map = given_map(settings).of_sources(names)
        sources_D = [description["sources"] for description in domain_map.describe()]
        if lost := [name for name in names if not any(name in sources for sources in sources_D)]:
            raise refuse("dids_domains", settings.config.dids_domains, f"a map that has samples of {lost[0]!r}")
        index = domain_map.lookup()
        readers = [
            _Reader(tuple((name, streams[name]) for name in sources), domain, index, tokenise)
            for domain, sources in enumerate(sources_D)
        ]
    shuffles = not settings.finetuning_args.disable_shuffling
    size = -(-source.data_args.buffer_size // len(readers)) if shuffles else 1
    rows = StreamedRows(
        [
            DomainStream(name, reader, buffer_size=size, key=(settings.seed, domain))
            for domain, (name, reader) in enumerate(zip(domain_map.names, readers, strict=True))
        ],
        tokenise,
    )
    return {"train_dataset": rows, **source.evaluation()}, domain_map


def _aligned(source: DataSource, name: str) -> Any:
    """A data set's examples as the host streams them, in a single shard, which workers cannot divide."""
    data_args = with_changes(source.data_args, mixing=None)
    training_args = with_changes(source.training_args, dataloader_num_workers=1)
    try:
        parts = loader._get_merged_dataset([name], source.model_args, data_args, training_args, source.stage, True)
    except Exception as error:  # the host or `datasets` raises many kinds for a broken file
        raise refuse("dataset", name, f"a dataset that can be streamed ({error})") from error
    return parts[name]


def _tokeniser(source: DataSource) -> "_Tokeniser":
    data_args = with_changes(source.data_args, mixing=None)
    return _Tokeniser(
        loader._get_dataset_processor(data_args, source.stage, source.template, source.tokenizer, source.processor)
    )


@dataclass(frozen=True)
class _Tokeniser:
    """The host's row of one aligned example, or None if the host drops the example."""

    processor: Any

    def __call__(self, example: Example) -> dict[str, Any] | None:
        rows = self.processor.preprocess_dataset({name: [value] for name, value in example.items()})
        return {name: values[0] for name, values in rows.items()} if any(rows.values()) else None


@dataclass(frozen=True)
class _Reader:
    """Reads a domain's examples, from its sources in turn: all, or (with an `index`) those of the domain in the map."""

    sources: tuple[tuple[str, Any], ...]
    domain: int = 0
    index: dict[tuple[str, str], int] | None = None
    tokenise: _Tokeniser | None = None

    def __call__(self) -> Iterator[Example]:
        waiting = [self._of(name, stream) for name, stream in self.sources]
        while waiting:
            for reader in list(waiting):
                try:
                    yield next(reader)
                except StopIteration:
                    waiting.remove(reader)

    def _of(self, name: str, stream: Any) -> Iterator[Example]:
        tag = Tagger(name)
        for batch in stream.iter(batch_size=READ):  # not `iter(stream)`, which divides it over workers
            keys = tag(batch)[KEY_COLUMN] if self.index is not None else None
            for i in range(len(batch["_prompt"])):
                example = {column: values[i] for column, values in batch.items()}
                if keys is None or self._is_mine(name, keys[i], example):
                    yield example

    def _is_mine(self, source: str, key: str, example: Example) -> bool:
        assert self.index is not None and self.tokenise is not None
        domain = self.index.get((source, key))
        if domain is None and self.tokenise(example) is not None:
            raise _changed(source) if _holds_pictures(example) else lacking("a training sample", source, key)
        return domain == self.domain


def _holds_pictures(example: Example) -> bool:
    return any(not isinstance(picture, str) for picture in example.get("_images") or [])


def _changed(source: str) -> DidsError:
    return DidsError(
        f"dids_domains: the map lacks a picture of {source!r}, allowed with streaming: a map made from this data, with "
        "pictures as paths or PNG (LLaMA-Factory writes others anew where it does not stream)"
    )
