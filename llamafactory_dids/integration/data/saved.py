"""`tokenized_path`: the host keeps the tagged, tokenised data on disk; a note beside it says what it was made from.

The host loads such data whatever else the arguments say, so what differs is refused. Unpacked rows keep key and source
and find their domain in any map; packed ones hold samples of one domain of the map that they were packed by.
"""

from pathlib import Path
from typing import Any

from llamafactory.extras.misc import has_tokenized_data

from ...artifacts.domain_map import DomainMap
from ...artifacts.files import fingerprint, read_json, write_json
from ...errors import DidsError, refuse
from ...stages import ranks

NOTE = "dids_data.json"
KEYS = (
    *("template", "cutoff_len", "packing", "neat_packing"),
    *("train_on_prompt", "mask_history", "val_size", "max_samples"),
)


def check_note(data_args: Any, datasets: list[str], stage: str) -> None:
    """Raise DidsError, before anything is loaded, if the path holds data that was made otherwise, or by others."""
    path = data_args.tokenized_path
    if path is None or not has_tokenized_data(path):
        return
    if not (Path(path) / NOTE).exists():
        raise refuse(
            "tokenized_path", path, f"a new folder, or one with a {NOTE}: data that a run of this plugin saved whole"
        )
    _compare(path, {"dataset": datasets, "stage": stage, **_arguments(data_args)})


def settle_note(data_args: Any, stage: str, tokenizer: Any, domain_map: DomainMap) -> None:
    """After the data was loaded: raise DidsError if it is of another tokenizer or map; write the note if it is new."""
    path = data_args.tokenized_path
    if path is None:
        return
    found = {"dataset": list(data_args.dataset), "stage": stage, **_arguments(data_args)}
    found["vocabulary"] = fingerprint(tokenizer.get_vocab())
    if data_args.packing:
        found["domain_map"] = domain_map.digest()
    if (Path(path) / NOTE).exists():
        _compare(path, found)
    elif ranks.world()[0] == 0:
        write_json(Path(path) / NOTE, found)


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
