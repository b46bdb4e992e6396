"""The short form of what docs/reliability.md has in its long form: spoilt files, kills, faults, a soak."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from scripts import supply
from scripts.bench import fuzz, soak
from tests.helpers import PATIENCE

CHECKOUT = Path(__file__).resolve().parents[2]


def lines_of(script, *arguments):
    """What a script of scripts/bench prints, in a process of its own: it forks, or bounds its memory."""
    command = [sys.executable, str(CHECKOUT / "scripts" / "bench" / script), *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(CHECKOUT)}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300 * PATIENCE)
    assert ran.returncode == 0, ran.stdout[-3000:] + ran.stderr[-3000:]
    return [json.loads(line) for line in ran.stdout.splitlines()]


@pytest.mark.integration
def test_spoilt_files_are_refused_or_read_as_they_were(tmp_path):
    (found,) = lines_of("fuzz.py", "--executions", 1500, "--seed", 7, "--keep", tmp_path)
    assert found["faults"] == {} and sum(found["outcomes"].values()) == 1500
    assert found["outcomes"]["refused"] > 500 and found["resident_growth_mib"] < 200


@pytest.mark.integration
def test_killed_trainings_end_as_undisturbed_ones(tmp_path):
    found = lines_of("chaos.py", "--kills", 2, "--seed", 4, "--faults", "clock jumps back", "rename is not atomic, 0")
    assert [line["differ"] for line in found] == [[]] * 4


@pytest.mark.integration
def test_a_soak_says_what_each_update_holds():
    (found,) = lines_of("soak.py", "--steps", 120, "--updates", 30, "--resumes", 2)
    assert found["updates"] == 29 and set(found["per_thousand_steps"]) == set(soak.SERIES)
    assert found["checkpoint_bytes"] > 0


def test_a_slope_is_found_and_none_where_there_is_none():
    rng = np.random.default_rng(0)
    steps = np.arange(0, 2000, 40.0)
    parts = [
        np.column_stack([steps, *(rng.normal(100, 1, (4, 50)) + [[0.01 * s for s in steps], *[[0] * 50] * 3])])
    ] * 3
    parts = [part + np.column_stack([np.zeros(50), rng.normal(0, 1, (50, 4))]) for part in parts]
    found = soak.slopes(parts)
    assert found["memory, MiB"]["slope"] == pytest.approx(10, abs=2) and abs(found["threads"]["slope"]) < 2


def spoiling(monkeypatch, tmp_path, read, name="losses"):
    monkeypatch.setitem(fuzz.TARGETS, name, (fuzz.TARGETS[name][0], read))
    return fuzz.Target(name, tmp_path, sealed=True)


@pytest.mark.parametrize(
    ("read", "words"),
    [
        (lambda folder: os.urandom(8), "another result"),
        (lambda folder: {}["x"] if fuzz.told else None, "KeyError: 'x'"),
        (lambda folder: fuzz.told and Path("/etc/hostname").read_text(), "Escaped: open"),
        (lambda folder: fuzz.told and os.system("true"), "Escaped: os.system"),
    ],
    ids=["another_result", "exception", "climbs_out", "runs_a_command"],
)
def test_the_fuzzer_finds_a_reader_that_does_what_it_must_not(read, words, monkeypatch, tmp_path):
    monkeypatch.setattr(fuzz, "told", False, raising=False)
    target = spoiling(monkeypatch, tmp_path, read)
    monkeypatch.setattr(fuzz, "told", True)
    guard = fuzz.Guard(tmp_path)
    assert target.outcome(guard, next(iter(target.files))).startswith(words)
    assert not guard.on


@pytest.mark.parametrize(
    ("told", "binds"),
    [("GPL-3.0-only", True), ("GNU Affero General Public License v3", True), ("LGPL-2.1", False), ("MIT", False)],
)
def test_licences_that_bind_are_told_from_others(told, binds, monkeypatch, capsys):
    one = SimpleNamespace(metadata={"License-Expression": told})
    monkeypatch.setattr(supply, "closure", lambda: {"a": one})
    assert supply.licences() == binds
    assert ("a: " in capsys.readouterr().out) == binds


def test_the_licences_of_what_an_install_brings_bind_nobody():
    assert {"torch", "llamafactory", "transformers", "safetensors"} <= supply.closure().keys()
    assert supply.licences() == 0


def test_a_registry_that_does_not_answer_fails_nothing(monkeypatch, capsys):
    for stdout in ("", "{}", '{"dependencies": [{"name": "a", "skip_reason": "not found"}]}'):
        monkeypatch.setattr(subprocess, "run", lambda *_, stdout=stdout, **__: SimpleNamespace(stdout=stdout))
        assert supply.audit() == 0
    hole = {"id": "CVE-1", "fix_versions": ["2"]}
    found = json.dumps({"dependencies": [{"name": "a", "vulns": [hole]}]})
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: SimpleNamespace(stdout=found))
    assert supply.audit() == 1 and "a: CVE-1, mended in 2" in capsys.readouterr().out


@pytest.mark.parametrize("words", [("audit", "notes.txt"), ("sbom",), ("bill",)])
def test_another_command_than_the_three_says_what_there_is_and_writes_nothing(words, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["supply.py", *words])
    with pytest.raises(SystemExit, match="python scripts/supply.py licences "):
        supply.main()
    assert not list(tmp_path.iterdir())


def test_the_bill_of_materials_is_the_same_twice_and_has_a_licence_for_each(tmp_path):
    for name in ("a", "b"):
        supply.sbom(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    parts = json.loads((tmp_path / "a").read_text())["components"]
    assert all(re.fullmatch(r"pkg:pypi/[a-z0-9-]+@.+", part["purl"]) and part["licenses"] for part in parts)
