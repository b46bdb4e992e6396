"""When, where and by what a run was made."""

import subprocess

from llamafactory_dids.artifacts import run_about
from llamafactory_dids.artifacts.files import read_json


def test_a_resumed_run_keeps_its_start(tmp_path):
    run_about.save_about(tmp_path, {"hardware": "a"}, resumed=False)
    first = read_json(tmp_path / "run.json")
    (tmp_path / "run.json").write_text('{"started": "2020-01-01 00:00 UTC"}')
    run_about.save_about(tmp_path, {"hardware": "b"}, resumed=True)
    assert read_json(tmp_path / "run.json") == {"started": "2020-01-01 00:00 UTC", "hardware": "b"}
    run_about.save_about(tmp_path, {"hardware": "b"}, resumed=False)
    assert read_json(tmp_path / "run.json")["started"] >= first["started"]


def test_a_command_is_told_without_what_is_secret():
    words = ["/bin/llamafactory-cli", "train", "a b.yaml", "hf_hub_token=hf_x", "--api_key", "sk-x", "max_steps=3"]
    told = "llamafactory-cli train 'a b.yaml' 'hf_hub_token=***' --api_key '***' max_steps=3"
    assert run_about.command(words) == told


def test_devices_are_counted_by_their_names_and_else_processors():
    assert run_about.hardware(["X", "X", "Y"]) == "2 × X, 1 × Y"
    assert " × CPU (" in run_about.hardware([])


def test_a_checkout_has_a_commit_marked_where_its_files_were_changed(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run_about.commits(tmp_path) == {}
    for words in (["init", "-q"], ["add", "."], ["commit", "-q", "-m", "x"]):
        (tmp_path / "file").write_text("1")
        identity = ["-c", "user.name=n", "-c", "user.email=e"]
        subprocess.run(["git", "-C", str(tmp_path), *identity, *words], check=True)
    (commit,) = {*run_about.commits(tmp_path).values()}
    assert len(commit) == 12
    (tmp_path / "file").write_text("2")
    assert set(run_about.commits(tmp_path).values()) == {f"{commit}+"}
