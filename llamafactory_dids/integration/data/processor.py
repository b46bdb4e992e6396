"""The host's processor of a batch of examples, with the tags of each row's origin."""

import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from ...artifacts.samples import UNKNOWN
from ...errors import DidsError
from ...training.collator import DOMAIN_COLUMN, KEY_COLUMN, SOURCE_COLUMN
from ..settings import settings_of, with_changes
from .tags import TAGS, lacking

Batch = dict[str, list[Any]]


def keeping_tags(host: Callable[..., Any]) -> Callable[..., Any]:
    """The host's `_get_dataset_processor`. Its processors keep the tags of the rows that survive."""

    @functools.wraps(host)
    def processor(data_args: Any, stage: str, *args: Any, **kwargs: Any) -> Any:
        inner = host(data_args, stage, *args, **kwargs)
        return inner if settings_of(data_args) is None else TagKeepingProcessor(inner, stage)

    return processor


class TagKeepingProcessor:
    """A host processor, called so that each of its rows can be traced to its example.

    Unpacked, an example makes one row or none, and the row gets the example's key and source. Packed, the examples come
    sorted by domain; the processor gets one domain at a time, and each row gets its domain.
    """

    def __init__(self, inner: Any, stage: str) -> None:
        self.inner = inner
        self.cuts_text = stage == "pt"  # when packing, the host cuts the text of a batch into rows, and drops the rest

    def preprocess_dataset(self, examples: Mapping[str, list[Any]]) -> Mapping[str, list[Any]]:
        """Tokenised rows with their tags, from a batch of aligned examples."""
        if KEY_COLUMN not in examples:
            return self.inner.preprocess_dataset(examples)  # type: ignore[no-any-return]
        return self._packed(examples) if DOMAIN_COLUMN in examples else self._traced(examples)

    def _traced(self, examples: Mapping[str, list[Any]]) -> Batch:
        """Rows with key and source. The batch stays whole: KTO's baseline uses the answer of the example before."""
        keys = examples[KEY_COLUMN]
        marked = [_Marked(images, row) for row, images in enumerate(examples["_images"])]
        rows = dict(self.inner.preprocess_dataset(_untagged(examples) | {"_images": marked}))
        kept = [images.row for images in rows.get("images", [])]
        if "images" not in rows and _num_rows(rows):  # a stage that drops no example
            kept = list(range(len(keys)))
        if len(kept) != _num_rows(rows):
            raise DidsError(
                "this version of LLaMA-Factory drops examples without telling which; allowed: llamafactory 0.9.5, or "
                "its main branch"
            )
        if "images" in rows:
            rows["images"] = [examples["_images"][row] for row in kept]
        return rows | {tag: [examples[tag][row] for row in kept] for tag in TAGS}

    def _packed(self, examples: Mapping[str, list[Any]]) -> Batch:
        rows: Batch = {DOMAIN_COLUMN: []}  # `datasets` cannot write a batch without columns
        for domain, group in itertools.groupby(enumerate(examples[DOMAIN_COLUMN]), key=lambda pair: pair[1]):
            places = [place for place, _ in group]
            part = self._of_one_domain({k: [v[i] for i in places] for k, v in _untagged(examples).items()})
            count = _num_rows(part)
            if count and domain == UNKNOWN:
                first = places[0]
                what = f"{len(places)} training samples"
                raise lacking(what, examples[SOURCE_COLUMN][first], examples[KEY_COLUMN][first])
            for column, values in {**part, DOMAIN_COLUMN: [domain] * count}.items():
                rows.setdefault(column, []).extend(values)
        return rows

    def _of_one_domain(self, examples: Batch) -> Batch:
        if not self.cuts_text:
            return self.inner.preprocess_dataset(examples)  # type: ignore[no-any-return]
        heard = _Heard(self.inner.tokenizer)
        rows = with_changes(self.inner, tokenizer=heard).preprocess_dataset(examples)
        rest = heard.rest(self.inner.data_args.cutoff_len)
        if len(rest["input_ids"][0]) < 2:  # a single token has no token before it to be predicted from
            return rows  # type: ignore[no-any-return]
        data_args = with_changes(self.inner.data_args, cutoff_len=len(rest["input_ids"][0]))
        short = with_changes(self.inner, tokenizer=_Heard(self.inner.tokenizer, rest), data_args=data_args)
        last = short.preprocess_dataset(examples)
        return {column: [*rows.get(column, []), *values] for column, values in last.items()}

    def print_data_example(self, example: dict[str, Any]) -> None:
        """Print the example as the host prints its first."""
        self.inner.print_data_example(example)


class _Marked(list[Any]):
    """The images of an example, marked with its row. The host passes them on from a kept example to its row."""

    def __init__(self, images: Any, row: int) -> None:
        super().__init__(images or [])
        self.row = row


class _Heard:
    """A tokenizer that remembers the tokens of its last call, or always returns `answer`."""

    def __init__(self, tokenizer: Any, answer: Batch | None = None) -> None:
        self._tokenizer = tokenizer
        self._answer = answer
        self._said: Mapping[str, list[Any]] = {}

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        self._said = self._tokenizer(*args, **kwargs) if self._answer is None else self._answer
        return self._said

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tokenizer, name)

    def rest(self, width: int) -> Batch:
        """The tokens left over when they are cut into rows of this width: one row for each column."""
        total = sum(len(tokens) for tokens in self._said["input_ids"])
        found: Batch = {}
        for column, values in self._said.items():
            found[column] = [list(itertools.chain.from_iterable(values))[total - total % width :]]
        return found


def _untagged(examples: Mapping[str, list[Any]]) -> Batch:
    return {column: examples[column] for column in examples if column not in (*TAGS, DOMAIN_COLUMN)}


def _num_rows(rows: Mapping[str, list[Any]]) -> int:
    return len(next(iter(rows.values()), []))
