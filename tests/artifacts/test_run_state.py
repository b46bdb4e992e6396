import pytest
import torch

from llamafactory_dids.artifacts import run_state
from llamafactory_dids.artifacts.run_state import (
    discard_state,
    is_whole,
    load_share,
    load_tensors,
    load_values,
    save_share,
    save_state,
    whole_checkpoints,
)
from llamafactory_dids.errors import DidsError

VALUES = {"step": 12, "tasks": ["a", "数学"], "seconds": 1.5, "history_starts": [0, 8]}
TENSORS = {
    "history": torch.tensor([[0.5, 0.5], [0.1, 0.9]], dtype=torch.float64),
    "touched": torch.tensor([True, False]),
    "empty": torch.zeros(0),
    "expanded": torch.ones((), dtype=torch.bfloat16).expand(1),
    "slanted": torch.arange(6.0).reshape(2, 3).T,
}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert found[name].dtype == tensor.dtype and torch.equal(found[name], tensor)


@pytest.fixture
def checkpoint(tmp_path):
    """A checkpoint of two ranks, with files of the host."""
    folder = tmp_path / "checkpoint-12"
    (folder / "shards").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"weights")
    (folder / "shards" / "optimizer.pt").write_bytes(b"moments")
    save_share(folder, 1, {"sums": torch.ones(3)})
    save_state(folder, VALUES, TENSORS)
    return folder


def test_values_tensors_and_shares_come_back_exactly(checkpoint):
    values = load_values(checkpoint)
    assert {key: values[key] for key in VALUES} == VALUES
    assert_same(load_tensors(checkpoint), TENSORS)
    assert_same(load_share(checkpoint, 1), {"sums": torch.ones(3)})


def test_one_rank_leaves_two_files_and_nothing_else(tmp_path):
    save_state(tmp_path, VALUES, TENSORS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dids_state.json", "dids_state.safetensors"]


FILES = ("dids_state.json", "dids_state.safetensors", "dids_state.rank1.safetensors")


@pytest.mark.parametrize("name", [*FILES, "model.safetensors", "shards/optimizer.pt"])
@pytest.mark.parametrize("damage", ["lost", "cut", "garbage"])
def test_a_checkpoint_with_a_broken_file_is_not_whole_and_refused_by_the_files_name(checkpoint, name, damage):
    path = checkpoint / name
    content = path.read_bytes()
    path.unlink()
    if damage != "lost":
        path.write_bytes(content[:-3] if damage == "cut" else b"\xffgarbage")
    assert not is_whole(checkpoint)
    with pytest.raises(DidsError, match=f"{path}: "):
        load_values(checkpoint)


def test_a_changed_number_is_refused_by_name(checkpoint):
    path = checkpoint / "dids_state.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    with pytest.raises(DidsError, match=f"{path}: changed since it was written"):
        load_tensors(checkpoint)


def test_tensors_of_the_right_size_that_are_none_are_refused_by_name(checkpoint):
    path = checkpoint / "dids_state.safetensors"
    path.write_bytes(b"\xff" * path.stat().st_size)
    with pytest.raises(DidsError, match=f"{path}: not readable"):
        load_tensors(checkpoint)


@pytest.mark.parametrize("content", ["{}", '{"schema": 1}', '{"schema": 3}', '{"schema": 3, "files": []}'])
def test_a_state_of_another_schema_is_refused_by_name(checkpoint, content):
    (checkpoint / "dids_state.json").write_text(content)
    with pytest.raises(DidsError, match=f"{checkpoint / 'dids_state.json'}: schema .*, this version reads 3"):
        load_values(checkpoint)


def test_a_save_that_was_killed_half_way_is_no_state(checkpoint, monkeypatch):
    discard_state(checkpoint)
    monkeypatch.setattr(run_state, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_state(checkpoint, VALUES, TENSORS)
    with pytest.raises(DidsError, match="no such file"):
        load_values(checkpoint)


def test_whole_checkpoints_are_found_by_their_number_the_latest_first(tmp_path):
    for step in (6, 100, 24):
        save_state(tmp_path / f"checkpoint-{step}", VALUES, TENSORS)
    save_state(tmp_path / "checkpoint-last", VALUES, TENSORS)
    (tmp_path / "checkpoint-200").mkdir()
    assert [path.name for path in whole_checkpoints(tmp_path)] == ["checkpoint-100", "checkpoint-24", "checkpoint-6"]
    assert whole_checkpoints(tmp_path / "nowhere") == []
