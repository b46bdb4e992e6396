import json

import numpy as np
import pytest
from safetensors import SafetensorError

from llamafactory_dids.artifacts import files
from llamafactory_dids.errors import DidsError


@pytest.mark.parametrize("kind", [OSError, SafetensorError])
def test_a_writer_that_fails_leaves_the_old_file_and_is_told_by_its_name(kind, tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"old": 1})

    def fail(stream):
        stream.write(b'{"new": ')
        raise kind("disk full")

    with pytest.raises(DidsError, match=f"^{path}: cannot be written .disk full.; allowed: a folder"):
        files.write_atomically(path, fail)
    assert files.read_json(path) == {"old": 1}


def test_a_reader_that_has_the_old_file_open_reads_it_to_its_end(tmp_path):
    path = tmp_path / "a.txt"
    files.write_text(path, "old and long")
    with open(path) as reader:
        files.write_text(path, "new")
        assert reader.read() == "old and long"
    assert path.read_text() == "new"


def test_a_writer_that_raises_leaves_nothing_that_a_reader_would_take(tmp_path):
    def fail(stream):
        np.save(stream, np.zeros(3))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        files.write_atomically(tmp_path / "part-00000.npy", fail)
    assert list(tmp_path.iterdir()) == []


def test_what_is_written_is_whole_before_it_has_its_name(tmp_path):
    path = tmp_path / "new" / "folder" / "a.txt"

    def write(stream):
        stream.write(b"all")
        stream.flush()
        assert not path.exists()

    files.write_atomically(path, write)
    assert path.read_bytes() == b"all"
    assert list(path.parent.iterdir()) == [path]


def test_json_comes_back_with_every_letter(tmp_path):
    value = {"naïve": ["数学", None, 1.5, True], "b": {"c": []}}
    files.write_json(tmp_path / "a.json", value)
    assert files.read_json(tmp_path / "a.json") == value


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_json_is_refused_and_the_old_file_stays(tmp_path, value):
    path = tmp_path / "a.json"
    files.write_json(path, {"x": 1})
    with pytest.raises(ValueError):
        files.write_json(path, {"x": value})
    assert files.read_json(path) == {"x": 1}


@pytest.mark.parametrize(
    "content", [b"", b'{"a": ', b"\xff\xfe\x00", b"[]", b"[" * 100_000, b'"\\ud800"', b'{"a": "\\ud800"}']
)
def test_broken_json_is_refused_by_name(tmp_path, content):
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(DidsError, match=f"{path}: not readable as JSON"):
        files.read_json(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(DidsError, match=f"{tmp_path / 'a.json'}: no such file"):
        files.read_json(tmp_path / "a.json")


@pytest.mark.parametrize("shape", [(4, 3), (0,), (2,)])
def test_arrays_come_back(tmp_path, shape):
    array = np.arange(np.prod(shape), dtype=np.float16).reshape(shape)
    files.write_array(tmp_path / "a.npy", array)
    assert np.array_equal(files.read_array(tmp_path / "a.npy", shape, "float16"), array)


@pytest.mark.parametrize("length", [0, 5, 80, 130, 133, 135, 137])
def test_a_broken_array_is_refused_by_name(tmp_path, length):
    path = tmp_path / "a.npy"
    files.write_array(path, np.arange(3, dtype=np.float16))
    assert path.stat().st_size == 134 + files.CHECKSUM
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DidsError, match=f"{path}: not a whole .npy file"):
        files.read_array(path, (3,), "float16")


def test_no_bit_of_an_array_or_of_json_changes_unseen(tmp_path):
    files.write_array(tmp_path / "a.npy", np.arange(3, dtype=np.float16))
    files.write_json(tmp_path / "a.json", {"seed": 7, "name": "naïve"})
    whole = {path: path.read_bytes() for path in tmp_path.iterdir()}
    for path, content in whole.items():
        for bit in range(8 * len(content)):
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            path.write_bytes(changed)
            try:
                if path.suffix == ".npy":
                    assert files.read_array(path, (3,), "float16").tolist() == [0, 1, 2]
                else:  # a bit in the key of the checksum loses that, and nothing else
                    assert {"seed": 7, "name": "naïve"}.items() <= files.read_json(path).items()
            except DidsError as error:
                assert str(error).startswith(f"{path}: ") and str(error).isprintable()


def test_an_array_of_an_earlier_version_has_no_checksum_and_is_read(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3, dtype=np.float16))
    assert files.read_array(tmp_path / "a.npy", (3,), "float16").tolist() == [0, 1, 2]


def test_edited_json_is_refused_until_its_checksum_is_taken_away(tmp_path):
    path = tmp_path / "a.json"
    files.write_json(path, {"seed": 7})
    edited = json.loads(path.read_text()) | {"seed": 8}
    path.write_text(json.dumps(edited))
    with pytest.raises(DidsError, match=f"{path}: changed since it was written; allowed: .*without 'digest'"):
        files.read_json(path)
    del edited["digest"]
    path.write_text(json.dumps(edited))
    assert files.read_json(path) == {"seed": 8}


def test_an_error_is_one_line_that_no_terminal_obeys():
    assert str(DidsError("a file: lines\nof\x1b[31m \u202ewords")) == "a file: lines of\\x1b[31m \\u202ewords"


def test_an_array_of_another_shape_or_type_is_refused_with_both(tmp_path):
    path = tmp_path / "a.npy"
    files.write_array(path, np.zeros((2, 3), np.float32))
    with pytest.raises(DidsError, match=r"a.npy: holds float32\[2, 3\], expected float32\[2, 4\]"):
        files.read_array(path, (2, 4), "float32")
    with pytest.raises(DidsError, match=r"a.npy: holds float32\[2, 3\], expected float16\[2, 3\]"):
        files.read_array(path, (2, 3), "float16")


def test_objects_are_neither_written_nor_read(tmp_path):
    objects = np.array([{"a": 1}], dtype=object)
    with pytest.raises(ValueError):
        files.write_array(tmp_path / "a.npy", objects)
    np.save(tmp_path / "b.npy", objects, allow_pickle=True)
    with pytest.raises(DidsError, match="b.npy"):
        files.read_array(tmp_path / "b.npy", (1,), "object")


def test_a_fingerprint_changes_with_any_value_and_not_with_their_order():
    inputs = {"model": "a", "dims": [1, 2], "nested": {"x": 1.0, "y": None}}
    reordered = json.loads(json.dumps({"nested": {"y": None, "x": 1.0}, "dims": [1, 2], "model": "a"}))
    assert files.fingerprint(inputs) == files.fingerprint(reordered)
    others = [
        {**inputs, "model": "b"},
        {**inputs, "dims": [2, 1]},
        {**inputs, "nested": {"x": 1.0, "y": 0}},
        {**inputs, "more": None},
    ]
    assert len({files.fingerprint(one) for one in [inputs, *others]}) == 5
    assert all(set(files.fingerprint(one)) <= set("0123456789abcdef") for one in others)


def test_the_fingerprint_is_the_same_in_every_process():
    assert files.fingerprint({"a": 1}) == "165b44bb3d3e0923"


@pytest.mark.parametrize(
    ("found", "sentence"),
    [
        ({"a": 1, "b": "x"}, "made with b = 'x', this run has 'y'"),
        ({"a": 1}, "made with b = None, this run has 'y'"),
        ({"a": 1, "b": "y", "c": 3}, "made with c = 3, this run has None"),
    ],
)
def test_a_difference_is_refused_with_both_values(tmp_path, found, sentence):
    with pytest.raises(DidsError, match=f"{tmp_path}: {sentence}"):
        files.check_same(tmp_path, found, {"a": 1, "b": "y"})


def test_equal_inputs_pass(tmp_path):
    files.check_same(tmp_path, {"a": [1, {"b": 2}]}, {"a": [1, {"b": 2}]})
