"""Irrelevant data for a run (section 5.5.2): data sets cut so that they make up a share of all training samples.

A quarter of `finance` beside the other sources is a data set of its own, `finance_25`, in the same folder.
"""

import json
import random
from collections.abc import Sequence
from pathlib import Path

import pyarrow.parquet as pq

from llamafactory_dids.artifacts.files import write_atomically, write_text
from llamafactory_dids.errors import DidsError


def cut_names(names: Sequence[str], share: float) -> list[str]:
    """What the data sets are called once they are cut to a share."""
    return [f"{name}_{round(100 * share)}" for name in names]


def write(folder: Path, names: Sequence[str], others: Sequence[str], share: float) -> list[str]:
    """Cut the data sets `names` of a folder so that together they are `share` of all samples beside the `others`.

    Each gives in proportion to its size, the same rows whenever it is cut; a smaller share has part of these. The names
    of what was written. Raises DidsError where there are too few rows.
    """
    path = folder / "dataset_info.json"
    info = json.loads(path.read_text(encoding="utf-8"))
    written = cut_names(names, share)
    sizes = [_size(folder / info[name]["file_name"]) for name in names]
    num_others = sum(_size(folder / info[name]["file_name"]) for name in others)
    wanted = round(num_others * share / (1 - share))
    if not len(names) <= wanted <= sum(sizes):
        raise DidsError(
            f"{folder}: got {sum(sizes)} rows of {', '.join(names)}, allowed: at least {max(wanted, len(names))}, so "
            f"that they are {share:.0%} beside {num_others} others"
        )
    for name, new, count in zip(names, written, in_proportion(sizes, wanted), strict=True):
        source = folder / info[name]["file_name"]
        target = source.with_name(f"{new}{source.suffix}")
        _cut(source, target, count)
        info[new] = info[name] | {"file_name": target.name}
    write_text(path, json.dumps(info, ensure_ascii=False, indent=1) + "\n")
    return written


def in_proportion(sizes: Sequence[int], total: int) -> list[int]:
    """`total`, at most their sum, shared out in proportion to the sizes; the largest remainders are rounded up."""
    due = [size * total / sum(sizes) for size in sizes]
    counts = [int(share) for share in due]
    for i in sorted(range(len(due)), key=lambda i: counts[i] - due[i])[: total - sum(counts)]:
        counts[i] += 1
    return counts


def _size(path: Path) -> int:
    if path.suffix == ".parquet":
        return int(pq.read_metadata(path).num_rows)
    with open(path, encoding="utf-8") as stream:
        return sum(1 for _ in stream)


def _cut(source: Path, target: Path, count: int) -> None:
    order = list(range(_size(source)))
    random.Random(source.stem).shuffle(order)
    chosen = sorted(order[:count])
    if source.suffix == ".parquet":
        table = pq.read_table(source).take(chosen)
        write_atomically(target, lambda stream: pq.write_table(table, stream))
        return
    lines = source.read_text(encoding="utf-8").splitlines(keepends=True)
    write_text(target, "".join(lines[i] for i in chosen))
