import json

import numpy as np
import pytest

from llamafactory_dids.artifacts import gradient_store
from llamafactory_dids.artifacts.files import read_json
from llamafactory_dids.artifacts.gradient_store import open_store
from llamafactory_dids.errors import DidsError

INPUTS = {"proxy": "tiny", "seed": 1, "dims": [3]}
ROWS, DIM, PART_ROWS = 10, 3, 4


def make(folder, inputs=INPUTS, num_rows=ROWS, dim=DIM, part_rows=PART_ROWS):
    return open_store(folder, inputs, num_rows, dim, part_rows)


def content(store, part: int):
    rng = np.random.default_rng(part)
    size = len(store.rows(part))
    unit_RK = rng.normal(size=(size, store.dim)).astype(np.float16)
    return unit_RK, rng.random(size).astype(np.float32), rng.random(size) > 0.3


def write(store, *parts: int):
    for part in parts:
        store.write_part(part, *content(store, part))
    return store


def test_parts_cover_every_row_once(tmp_path):
    store = make(tmp_path)
    assert store.num_parts == 3
    assert [i for part in range(3) for i in store.rows(part)] == list(range(ROWS))


def test_what_was_written_is_read_in_order(tmp_path):
    store = write(make(tmp_path), 2, 0, 1)
    for part, (rows, *arrays) in enumerate(make(tmp_path).read_parts()):
        assert rows == store.rows(part)
        for found, expected in zip(arrays, content(store, part), strict=True):
            assert found.dtype == expected.dtype and np.array_equal(found, expected)


def test_an_opened_store_goes_on_with_the_parts_that_are_missing(tmp_path):
    write(make(tmp_path), 1)
    again = make(tmp_path)
    assert again.missing_parts() == [0, 2]
    write(again, 2, 0)
    assert make(tmp_path).missing_parts() == []


@pytest.mark.parametrize("after", [0, 1, 2])
def test_a_part_that_was_killed_while_it_was_written_is_missing(tmp_path, monkeypatch, after):
    store, done, write_array = make(tmp_path), [], gradient_store.write_array

    def killed(path, array):
        if len(done) == after:
            raise KeyboardInterrupt
        done.append(path)
        write_array(path, array)

    monkeypatch.setattr(gradient_store, "write_array", killed)
    with pytest.raises(KeyboardInterrupt):
        write(store, 0)
    monkeypatch.undo()
    assert make(tmp_path).missing_parts() == [0, 1, 2]
    for found, expected in zip(write(make(tmp_path), 0).read_part(0), content(store, 0), strict=True):
        assert np.array_equal(found, expected)


def test_a_store_with_parts_missing_is_not_read(tmp_path):
    with pytest.raises(DidsError, match=f"{tmp_path}: 2 of 3 parts missing"):
        next(write(make(tmp_path), 1).read_parts())


@pytest.mark.parametrize("kind", ["part", "norm", "written"])
@pytest.mark.parametrize(
    "damage", [lambda b: b[:-1], lambda b: b"", lambda b: b"garbage" + b[7:], lambda b: b[:-9] + b"x" + b[-8:]]
)
def test_a_corrupt_file_is_refused_by_name(tmp_path, kind, damage):
    store = write(make(tmp_path), 0, 1, 2)
    path = tmp_path / f"{kind}-00001.npy"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(DidsError, match=f"{path}: not a whole .npy file"):
        list(store.read_parts())


@pytest.mark.parametrize("kind", ["norm", "written"])
def test_a_lost_file_is_refused_by_name(tmp_path, kind):
    store = write(make(tmp_path), 0)
    (tmp_path / f"{kind}-00000.npy").unlink()
    with pytest.raises(DidsError, match=f"{kind}-00000.npy"):
        store.read_part(0)


def test_a_part_of_another_shape_is_refused_with_both(tmp_path):
    store = write(make(tmp_path), 0)
    np.save(tmp_path / "part-00000.npy", np.zeros((4, 5), np.float16))
    with pytest.raises(DidsError, match=r"part-00000.npy: holds float16\[4, 5\], expected float16\[4, 3\]"):
        store.read_part(0)


@pytest.mark.parametrize(
    ("other", "sentence"),
    [
        ({"inputs": {**INPUTS, "proxy": "large"}}, "made with proxy = 'tiny', this run has 'large'"),
        ({"inputs": {**INPUTS, "template": "chat"}}, "made with template = None, this run has 'chat'"),
        ({"num_rows": 11}, "made with num_rows = 10, this run has 11"),
        ({"dim": 7}, "made with dim = 3, this run has 7"),
        ({"part_rows": 5}, "made with part_rows = 4, this run has 5"),
    ],
)
def test_a_store_made_from_other_inputs_is_refused_with_both_values(tmp_path, other, sentence):
    write(make(tmp_path), 0)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(DidsError, match=f"{tmp_path}: {sentence}"):
        make(tmp_path, **other)
    assert sorted(tmp_path.iterdir()) == before


def test_a_store_of_another_schema_is_refused_with_both(tmp_path):
    make(tmp_path)
    manifest = read_json(tmp_path / "manifest.json")
    (tmp_path / "manifest.json").write_text(json.dumps({**manifest, "schema": 99}))
    with pytest.raises(DidsError, match="made with schema = 99, this run has 1"):
        make(tmp_path)


@pytest.mark.parametrize("garbage", ["", "{", "[]", "3", "{}", '{"inputs": 4}', "\x00\x01"])
def test_a_garbage_manifest_is_refused_by_name(tmp_path, garbage):
    (tmp_path / "manifest.json").write_text(garbage)
    with pytest.raises(DidsError, match=f"{tmp_path / 'manifest.json'}: "):
        make(tmp_path)


def test_parts_without_a_manifest_are_refused(tmp_path):
    write(make(tmp_path), 0)
    (tmp_path / "manifest.json").unlink()
    with pytest.raises(DidsError, match=f"{tmp_path}: parts without manifest.json"):
        make(tmp_path)
