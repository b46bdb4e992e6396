import pytest
import torch

from llamafactory_dids.artifacts import run_state
from llamafactory_dids.artifacts.run_state import load_state, save_state
from llamafactory_dids.errors import DidsError

VALUES = {"step": 12, "tasks": ["a", "数学"], "seconds": 1.5, "history_starts": [0, 8]}
TENSORS = {
    "history": torch.tensor([[0.5, 0.5], [0.1, 0.9]], dtype=torch.float64),
    "touched": torch.tensor([True, False]),
    "empty": torch.zeros(0),
    "slanted": torch.arange(6.0).reshape(2, 3).T,
}


def test_values_and_tensors_come_back_exactly(tmp_path):
    save_state(tmp_path, VALUES, TENSORS)
    values, tensors = load_state(tmp_path)
    assert {key: values[key] for key in VALUES} == VALUES
    assert tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype and torch.equal(tensors[name], tensor)


def test_two_files_are_left_and_nothing_else(tmp_path):
    save_state(tmp_path, VALUES, TENSORS)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["dids_state.json", "dids_state.safetensors"]


@pytest.mark.parametrize("name", ["dids_state.json", "dids_state.safetensors"])
@pytest.mark.parametrize("damage", ["lost", "cut", "garbage"])
def test_a_broken_file_is_refused_by_name(tmp_path, name, damage):
    save_state(tmp_path, VALUES, TENSORS)
    path = tmp_path / name
    whole = path.read_bytes()
    path.unlink()
    if damage != "lost":
        path.write_bytes(whole[:-7] if damage == "cut" else b"\xffgarbage")
    with pytest.raises(DidsError, match=f"{path}: "):
        load_state(tmp_path)


@pytest.mark.parametrize("content", ["{}", '{"schema": 2}', "[]", "null"])
def test_a_state_of_another_schema_is_refused_by_name(tmp_path, content):
    save_state(tmp_path, VALUES, TENSORS)
    (tmp_path / "dids_state.json").write_text(content)
    with pytest.raises(DidsError, match=f"{tmp_path / 'dids_state.json'}: schema .*, this version reads 1"):
        load_state(tmp_path)


def test_a_save_that_was_killed_half_way_is_no_state(tmp_path, monkeypatch):
    monkeypatch.setattr(run_state, "write_json", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        save_state(tmp_path, VALUES, TENSORS)
    with pytest.raises(DidsError, match="no such file"):
        load_state(tmp_path)
