"""Irrelevant data is cut to its share of all training samples, whatever the kind of its files."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llamafactory_dids.errors import DidsError
from scripts.experiments import irrelevant

SIZES = {"sums": 120, "pairs": 90, "noise": 60, "more": 30}


@pytest.fixture(params=["jsonl", "parquet"])
def folder(request, tmp_path):
    info = {}
    for name, size in SIZES.items():
        file, rows = f"{name}.{request.param}", [{"output": f"{name} {i}"} for i in range(size)]
        if request.param == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), tmp_path / file)
        else:
            (tmp_path / file).write_text("".join(json.dumps(row) + "\n" for row in rows))
        info[name] = {"file_name": file, "columns": {"response": "output"}}
    (tmp_path / "dataset_info.json").write_text(json.dumps(info))
    return tmp_path


def rows_of(folder, name):
    entry = json.loads((folder / "dataset_info.json").read_text())[name]
    path = folder / entry["file_name"]
    rows = pq.read_table(path).to_pylist() if path.suffix == ".parquet" else map(json.loads, path.open())
    return [row[entry["columns"]["response"]] for row in rows]


def test_the_share_is_that_of_all_samples_and_each_data_set_gives_in_proportion(folder):
    assert irrelevant.write(folder, ["noise", "more"], ["sums", "pairs"], 0.125) == ["noise_12", "more_12"]
    assert [len(rows_of(folder, name)) for name in ("noise_12", "more_12")] == [20, 10]  # 30 of 240


def test_what_is_left_are_rows_of_its_own_in_their_order_and_a_larger_share_has_those_of_a_smaller_one(folder):
    small, large = (
        rows_of(folder, irrelevant.write(folder, ["noise"], ["sums", "pairs"], share)[0]) for share in (0.1, 0.2)
    )
    assert len(small) == 23 and set(small) < set(large)
    assert large == [row for row in rows_of(folder, "noise") if row in large]
    assert large != rows_of(folder, "noise")[: len(large)]


@pytest.mark.parametrize(("share", "least"), [(0.25, 70), (0.001, 1)])
def test_a_share_that_the_rows_do_not_make_is_refused(folder, share, least):
    with pytest.raises(DidsError, match=f"got 60 rows of noise, allowed: at least {least}, so that"):
        irrelevant.write(folder, ["noise"], ["sums", "pairs"], share)


@pytest.mark.parametrize(("sizes", "total"), [([7, 4, 3], 5), ([1, 1, 1], 2), ([60], 60), ([100, 1], 50)])
def test_parts_are_within_one_of_what_is_due_and_sum_to_the_whole(sizes, total):
    counts = irrelevant.in_proportion(sizes, total)
    assert sum(counts) == total
    assert all(abs(c - s * total / sum(sizes)) < 1 and c <= s for c, s in zip(counts, sizes, strict=True))
