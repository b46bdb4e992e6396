"""Make a LLaMA-Factory dataset of each source of a collection that names them in a column.

    python scripts/split_sources.py allenai/tulu-3-sft-mixture --output data/tulu3
    python scripts/split_sources.py teknium/OpenHermes-2.5 --output data/openhermes
    python scripts/split_sources.py my/folder/*.parquet --output data/mine --column origin

Needs the network for a hub name, none for files. Conversations are taken from `messages` (role, content) or
`conversations` (from, value). Writes a .jsonl a source, enters it into dataset_info.json beside them, prints the line
for a YAML file. Rows without a source go to `other`.
"""

import argparse
import json
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROLES = {"human": "user", "gpt": "assistant"}
TAGS = {"role_tag": "role", "content_tag": "content", "user_tag": "user", "assistant_tag": "assistant"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("input", nargs="+", help="a hub name, or .parquet, .json, .jsonl files")
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--column", default="source", help="where a row says what it comes from")
    parser.add_argument("--split", default="train")
    given = parser.parse_args()
    counts = split(read(given.input, given.split), given.output, given.column)
    if not counts:
        raise SystemExit(f"{given.input[0]}: no conversations, allowed: rows with `messages` or `conversations`")
    for name, count in counts.items():
        print(f"{name}: {count}")
    print(f"\ndataset_dir: {given.output}\ndataset: {','.join(counts)}")


def read(inputs: list[str], name: str) -> Iterable[Mapping[str, Any]]:
    """The rows of files, or of a dataset of the hub."""
    from datasets import load_dataset

    files = [path for path in inputs if Path(path).suffix in (".parquet", ".json", ".jsonl")]
    if len(files) < len(inputs) and len(inputs) > 1:
        raise SystemExit(f"input: got {', '.join(inputs)}, allowed: one hub name, or .parquet, .json, .jsonl files")
    if not files:
        return load_dataset(inputs[0], split=name)  # type: ignore[no-any-return]
    kind = "parquet" if Path(files[0]).suffix == ".parquet" else "json"
    return load_dataset(kind, data_files=files, split="train")  # type: ignore[no-any-return]


def split(rows: Iterable[Mapping[str, Any]], folder: Path, column: str) -> Counter[str]:
    """Write the rows, a file a source, and `dataset_info.json`; how many rows each source has."""
    folder.mkdir(parents=True, exist_ok=True)
    counts: Counter[str] = Counter()
    with ExitStack() as stack:
        files: dict[str, Any] = {}
        for source, messages in conversations(rows, column):
            if source not in files:
                files[source] = stack.enter_context(open(folder / f"{source}.jsonl", "w", encoding="utf-8"))
            files[source].write(json.dumps({"messages": messages}, ensure_ascii=False) + "\n")
            counts[source] += 1
    info = {
        name: {
            "file_name": f"{name}.jsonl",
            "formatting": "sharegpt",
            "columns": {"messages": "messages"},
            "tags": {**TAGS, "system_tag": "system"},
        }
        for name in counts
    }
    path = folder / "dataset_info.json"
    known = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}  # such as the tasks
    path.write_text(json.dumps(known | info, indent=1) + "\n", encoding="utf-8")
    return counts


def conversations(rows: Iterable[Mapping[str, Any]], column: str) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """(name of the source, messages) of each row that has a conversation."""
    for row in rows:
        turns = row.get("messages") or row.get("conversations")
        if not turns:
            continue
        messages = [
            {
                "role": ROLES.get(turn.get("role") or turn.get("from"), turn.get("role") or turn.get("from")),
                "content": turn.get("content") or turn.get("value") or "",
            }
            for turn in turns
        ]
        yield dataset_name(row.get(column)), messages


def dataset_name(source: Any) -> str:
    """A name for dataset_info.json: `ai2-adapt-dev/flan_v2_converted` becomes `flan_v2_converted`."""
    return re.sub(r"[^0-9a-z]+", "_", str(source or "other").rpartition("/")[2].lower()).strip("_") or "other"


if __name__ == "__main__":
    main()
