"""`tokenized_path`: the host's tokenised rows on disk, and beside them their tags and a note of their origin.

The rows are the host's own, and a run without this plugin can use them. The host loads them without comparing
arguments, so this module refuses rows of another origin. It compares keys before anything is loaded, and the tokens of
a few saved examples after. Unpacked rows have key and source, and find their domain in any map. A packed row holds
samples of one domain of the map that it was packed by.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import concatenate_datasets, load_from_disk
from llamafactory.extras.misc import has_tokenized_data

from ...artifacts.domain_map import DomainMap
from ...artifacts.files import digest, fingerprint, read_json, write_json
from ...artifacts.samples import read_table, write_table
from ...errors import DidsError, refuse
from ...stages import ranks
from .tags import TAGS

NOTE, TAGS_FILE, EXAMPLES = "dids_data.json", "dids_tags.parquet", "dids_examples"
KEYS = (
    *("template", "cutoff_len", "packing", "neat_packing"),
    *("train_on_prompt", "mask_history", "val_size", "max_samples"),
)
NUM_EXAMPLES = 8  # examples of each data set


def is_saved(data_args: Any) -> bool:
    """Whether the training rows are at `tokenized_path`, which the web page's arguments do not have."""
    path = getattr(data_args, "tokenized_path", None)
    return path is not None and has_tokenized_data(path)


def check_note(data_args: Any, datasets: list[str], stage: str) -> None:
    """Raise DidsError, before anything is loaded, if the path holds data of another origin, or without our note."""
    if not is_saved(data_args):
        return
    path = data_args.tokenized_path
    if not all((Path(path) / name).exists() for name in (NOTE, TAGS_FILE)):
        raise refuse(
            "tokenized_path",
            path,
            f"a new folder, or one with {NOTE} and {TAGS_FILE}: data that a run of this plugin saved whole",
        )
    _compare(path, {"dataset": datasets, "stage": stage, **_arguments(data_args)})


def beside(path: str | None, tags: pa.Table | None, num_rows: int, writes: bool) -> pa.Table:
    """The tags of the training rows. New tags are saved beside the rows, by the ranks that write. If the host loaded
    saved rows (`tags` is None), their tags are read. Raises DidsError if there are not as many tags as rows.
    """
    if path is not None:
        if tags is not None and writes:
            write_table(Path(path) / TAGS_FILE, tags)
        ranks.wait_for_all()
        if tags is None:
            kept = read_json(Path(path) / NOTE).get(TAGS_FILE)
            tags = read_table(Path(path) / TAGS_FILE, kept, (), "tags of saved data")
    if tags is None or len(tags) != num_rows:
        got = f"{0 if tags is None else len(tags)} tags for {num_rows} rows in {path}"
        raise refuse("tokenized_path", got, f"a folder with as many tags as rows, {NOTE} and {TAGS_FILE}")
    return tags


def settle_note(
    data_args: Any,
    stage: str,
    tokenizer: Any,
    aligned: Mapping[str, Any],
    tokens_of: Callable[[Any], str],
    domain_map: DomainMap,
) -> None:
    """After the data was loaded: raise DidsError if it belongs to another map, or has other tokens than this run makes.

    A missing note is written, with a few of the `aligned` examples. `tokens_of` gives a digest of the tokens that the
    host makes of examples now.
    """
    if (path := data_args.tokenized_path) is None:
        return
    found = {"dataset": list(data_args.dataset), "stage": stage, **_arguments(data_args)}
    found["vocabulary"] = fingerprint(tokenizer.get_vocab())
    if data_args.packing:
        found["domain_map"] = domain_map.digest()
    if (Path(path) / NOTE).exists():
        _compare(path, found)
        if tokens_of(load_from_disk(str(Path(path) / EXAMPLES))) != read_json(Path(path) / NOTE).get("tokens"):
            raise DidsError(
                f"tokenized_path: {path} holds other tokens than this run's tokenizer, template and data options make; "
                "allowed: the options that it was saved with, or another tokenized_path"
            )
    elif ranks.world()[0] == 0:
        examples = concatenate_datasets([_few(part) for part in aligned.values()])
        examples.save_to_disk(str(Path(path) / EXAMPLES))
        kept = digest([(Path(path) / TAGS_FILE).read_bytes()])
        write_json(Path(path) / NOTE, {**found, "tokens": tokens_of(examples), TAGS_FILE: kept})


def _few(dataset: Any) -> Any:
    """Examples evenly spread over a data set, without their tags."""
    places = np.unique(np.linspace(0, len(dataset) - 1, NUM_EXAMPLES).astype(int))
    return dataset.select(places).remove_columns(list(TAGS))


def _arguments(data_args: Any) -> dict[str, Any]:
    return {key: getattr(data_args, key) for key in KEYS}


def _compare(path: str, expected: dict[str, Any]) -> None:
    note = read_json(Path(path) / NOTE)
    for key, value in expected.items():
        if note.get(key) != value:
            raise DidsError(
                f"tokenized_path: {path} was saved with {key} = {note.get(key)!r}, this run has {value!r}; "
                "allowed: the same value, or another tokenized_path"
            )
