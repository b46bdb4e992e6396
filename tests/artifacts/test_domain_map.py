import json
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from llamafactory_dids.artifacts.domain_map import DomainMap, View, load_map, save_map
from llamafactory_dids.artifacts.files import read_json
from llamafactory_dids.artifacts.samples import UNKNOWN, samples_digest, texts
from llamafactory_dids.errors import DidsError

MAP = DomainMap(
    names=("math/0", "math/1", "散文/0", "empty"),
    keys_N=["k0", "k1", "k2", "k0", "k4"],
    sources_N=["math", "math", "math", "散文", "散文"],
    domains_N=np.array([1, 0, 1, 2, 2]),
    typical_texts={"math/1": ["2 + 2 = 4", "naïve"]},
    inputs={"store": "abc", "num_domains": 4},
)


@pytest.fixture
def folder(tmp_path):
    save_map(MAP, tmp_path / "map")
    return tmp_path / "map"


@pytest.fixture
def unsealed(folder):
    """A map without checksums, as earlier versions made it."""
    content = read_json(folder / "domains.json")
    del content["domains.parquet"]
    (folder / "domains.json").write_text(json.dumps(content))
    return folder


def test_a_table_of_another_map_is_refused_by_name(folder):
    save_map(replace(MAP, domains_N=np.array([0, 0, 1, 2, 2])), folder.with_name("other"))
    shutil.copy(folder.with_name("other") / "domains.parquet", folder)
    with pytest.raises(DidsError, match=f"{folder}/domains.parquet: changed since it was written"):
        load_map(folder)


@pytest.mark.parametrize("end", ["", "domains.parquet", "domains.json"])
def test_a_map_comes_back_from_its_folder_or_either_file(folder, end):
    found = load_map(folder / end)
    assert found.names == MAP.names
    assert (found.keys_N, found.sources_N) == (MAP.keys_N, MAP.sources_N)
    assert found.domains_N.tolist() == MAP.domains_N.tolist() and found.domains_N.dtype == np.int64
    assert found.inputs == MAP.inputs
    assert {name: texts for name, texts in found.typical_texts.items() if texts} == MAP.typical_texts


def test_the_table_has_a_row_a_sample_that_other_programs_can_read(folder):
    table = pq.read_table(folder / "domains.parquet")
    assert table.column_names == ["sample_key", "source", "domain"]
    assert table["domain"].to_pylist() == ["math/1", "math/0", "math/1", "散文/0", "散文/0"]


def test_the_json_says_what_each_domain_is(folder):
    domains = json.loads((folder / "domains.json").read_text(encoding="utf-8"))["domains"]
    assert domains[1] == {
        "name": "math/1",
        "size": 2,
        "sources": {"math": 2},
        "typical_texts": ["2 + 2 = 4", "naïve"],
    }
    assert [domain["size"] for domain in domains] == [1, 2, 2, 0]


def test_the_same_key_in_two_sources_is_two_samples():
    assert MAP.lookup() == {
        ("math", "k0"): 1,
        ("math", "k1"): 0,
        ("math", "k2"): 1,
        ("散文", "k0"): 2,
        ("散文", "k4"): 2,
    }


def test_a_broken_table_is_refused_by_name(unsealed):
    path = unsealed / "domains.parquet"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(DidsError, match=f"{path}: not a whole parquet file"):
        load_map(unsealed)


@pytest.mark.parametrize("lost", ["domains.parquet", "domains.json"])
def test_a_missing_file_is_refused_by_name(folder, lost):
    (folder / lost).unlink()
    with pytest.raises(DidsError, match=f"{folder / lost}: no such file"):
        load_map(folder)


@pytest.mark.parametrize("column", ["sample_key", "source", "domain"])
def test_a_missing_column_is_refused_by_name(unsealed, column):
    path = unsealed / "domains.parquet"
    pq.write_table(pq.read_table(path).drop_columns([column]), path)
    with pytest.raises(DidsError, match=f"{path}: no column '{column}'; allowed: .*sample_key, source, domain"):
        load_map(unsealed)


@pytest.mark.parametrize(
    ("unknown", "words"),
    [("poems/7", "domains.parquet names 'poems/7', which domains.json does not"), (None, "a row has no domain")],
)
def test_a_domain_that_the_json_does_not_name_is_refused(unsealed, unknown, words):
    labels = ["math/1", "math/0", unknown, "散文/0", "散文/0"]
    table = pq.read_table(unsealed / "domains.parquet").drop_columns(["domain"])
    pq.write_table(table.append_column("domain", pa.array(labels, pa.string())), unsealed / "domains.parquet")
    with pytest.raises(DidsError, match=f"{unsealed}.*{words}"):
        load_map(unsealed)


def test_names_that_are_no_text_are_refused_by_the_files_name(unsealed):
    path = unsealed / "domains.parquet"
    keys = pa.array([b"\xed"] * 5, pa.binary())
    pq.write_table(pq.read_table(path).set_column(0, "sample_key", keys), path)
    with pytest.raises(DidsError, match=f"{path}: not a whole parquet file .*UTF"):
        load_map(unsealed)


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"schema": 1}',
        '{"schema": 2, "domains": []}',
        '{"schema": 1, "domains": [{}]}',
        '{"schema": 1, "domains": [{"name": 1}]}',
        "{",
        '"x"',
    ],
)
def test_json_of_another_kind_is_refused_by_name(folder, content):
    (folder / "domains.json").write_text(content)
    with pytest.raises(DidsError, match=f"{folder / 'domains.json'}: "):
        load_map(folder)


def test_a_map_killed_while_it_was_written_is_no_map(tmp_path, monkeypatch):
    from llamafactory_dids.artifacts import domain_map

    monkeypatch.setattr(domain_map, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_map(MAP, tmp_path)
    with pytest.raises(DidsError, match="domains.json"):
        load_map(tmp_path)


def test_domains_that_are_left_keep_their_names_and_are_counted_anew():
    whole = DomainMap(("x", "y", "z"), ["a", "b", "c"], ["s", "s", "t"], np.array([2, 1, 0]), {}, {"k": 1})
    part = whole.of_domains([0, 2])
    assert (part.names, part.inputs) == (("x", "z"), whole.inputs)
    assert part.lookup() == {("s", "a"): 1, ("t", "c"): 0}
    assert whole.of_sources({"t"}).names == ("x",) and whole.of_sources({"t"}).lookup() == {("t", "c"): 0}


def test_a_sample_is_found_by_source_and_key_and_one_that_the_map_lacks_is_told():
    found_M = MAP.domains_of(texts(["散文", "math", "math", "lost"]), texts(["k0", "k0", "k9", "k0"]))
    assert found_M.tolist() == [2, 1, UNKNOWN, UNKNOWN]


def test_of_equal_samples_the_last_one_counts_as_in_the_lookup():
    twice = DomainMap(("x", "y"), ["a", "a"], ["s", "s"], np.array([0, 1]))
    assert twice.domains_of(texts(["s"]), texts(["a"])).tolist() == list(twice.lookup().values()) == [1]


def test_digests_are_those_that_were_always_written():
    """Checkpoints hold them: a run of an older version goes on only where they stay."""
    assert MAP.digest() == "26000662b7e171ba"
    assert samples_digest(MAP.sources_N, MAP.keys_N) == "0c19bb2f7d814aaa"


def test_where_samples_lie_is_kept_with_the_map_and_with_a_part_of_it(tmp_path):
    points_N2 = np.array([[0.5, -1], [np.nan, np.nan], [2, 0]], dtype=np.float32)
    view = View(points_N2, (0.5, 0.25))
    whole = DomainMap(("x", "y"), ["a", "b", "c"], ["s", "s", "t"], np.array([0, 1, 1]), view=view)
    save_map(whole, tmp_path / "whole")
    found = load_map(tmp_path / "whole")
    np.testing.assert_array_equal(found.view.points_N2, points_N2)
    assert found.view.explained_2 == (0.5, 0.25) and found.digest() == whole.digest()
    save_map(found.of_sources({"t"}), tmp_path / "part")
    assert load_map(tmp_path / "part").view.points_N2.tolist() == [[2, 0]]
    save_map(MAP, tmp_path / "none")
    assert load_map(tmp_path / "none").view is None
