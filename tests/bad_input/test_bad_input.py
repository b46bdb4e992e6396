"""Each case of cases.yaml: bad input ends in the line that it states, where it says, with nothing torn left behind.

A case runs by `llamafactory-dids train`, in this process. `…` in a line stands for anything.
"""

import json
import re
import signal
import string
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from safetensors.torch import load_file

from llamafactory_dids.artifacts.mixture_log import MixtureLog
from llamafactory_dids.integration.commands import cli
from llamafactory_dids.integration.host.objectives import STAGES
from tests.bad_input import inputs
from tests.helpers import PATIENCE
from tests.integration.support import _dots, arguments, our_log, tuner, write_yaml

pytestmark = pytest.mark.integration

SECTIONS = yaml.safe_load(Path(__file__).with_name("cases.yaml").read_text(encoding="utf-8"))
SECTIONS.pop("of_several")  # parts of others
CASES = {
    name: {"ends": ends, "base": section.get("run", {}), **case}
    for ends, section in SECTIONS.items()
    for name, case in section["cases"].items()
}
COMPLETED = ("warned", "works")
LONGEST = 60  # seconds


@pytest.fixture
def place(world, finished, tmp_path, monkeypatch):
    return inputs.Place(tmp_path, tmp_path / "data", world, finished, monkeypatch)


@pytest.mark.parametrize("name", CASES)
def test_bad_input_gets_its_line_and_leaves_nothing_torn(name, place, capfd):
    case = CASES[name]
    ended, lines = outcome(case, place)
    expected = case.get("line")
    assert ended == case["ends"].replace("warned", "works"), lines
    assert expected is None or any(fits(expected, line) for line in lines), lines
    assert "Traceback" not in capfd.readouterr().err


def test_there_are_enough_cases_and_each_has_a_name_of_its_own():
    text = Path(__file__).with_name("cases.yaml").read_text(encoding="utf-8")
    assert len(re.findall(r"^    \w+:", text, re.MULTILINE)) == len(CASES) >= 120


def fits(pattern: str, line: str) -> bool:
    return re.fullmatch(".*".join(map(re.escape, pattern.split("…"))), line) is not None


def outcome(case: dict[str, Any], place: inputs.Place) -> tuple[str, list[str]]:
    """Where the case ended, and its line; those of the log where it worked."""
    path = write_case(case, place)
    before = files_below(place.folder)
    with reached(place.monkeypatch) as stages, our_log() as log, patience(), _dots():
        try:
            cli.main(["train", str(path)])
        except SystemExit as end:
            ended, lines = stages[-1], [str(end.code)]
            assert lines[0].startswith("error: ") and "\n" not in lines[0]
            lines = [lines[0].removeprefix("error: ")]
        else:
            ended, lines = "works", log
    new = {file: when for file, when in files_below(place.folder).items() if before.get(file) != when}
    if ended == "keys":
        assert not new
    elif ended == "data":
        assert not [file for file in new if file.is_relative_to(place.folder / "out")]
    for file in new:
        assert_whole(file)
    return ended, lines


def write_case(case: dict[str, Any], place: inputs.Place) -> Path:
    """The YAML file of a case, with its data, its artifacts and its environment."""
    for name, value in case.get("env", {}).items():
        place.monkeypatch.setenv(name, value)
    given = {}
    if "data" in case or "given" in case or "info" in case:
        place.take(place.world.data, "data")
        given["dataset_dir"] = str(place.data)
    for name, content in case.get("data", {}).items():
        add(place.data, name, content, case.get("info", {}).get(name, {}))
    if isinstance(case.get("given"), dict):
        inputs.spoilt(place, **case["given"])
    elif "given" in case:
        given |= getattr(inputs, case["given"])(place) or {}
    if (place.folder / "map").exists():
        given |= inputs.BY_MAP
    values = arguments(place.world, place.folder, **case["base"] | given | case.get("run", {}))
    places = {
        "folder": place.folder,
        "model": place.world.model,
        "proxy": place.world.proxy,
        "map": place.finished.dids,
    }
    text = string.Template(yaml.safe_dump(values, allow_unicode=True)).safe_substitute(places)
    path = write_yaml(place.folder / "run.yaml", {})
    path.write_text(case.get("text", text), encoding="utf-8")
    place.monkeypatch.setattr(sys, "argv", ["llamafactory-dids"])
    return path


def add(folder: Path, name: str, content: Any, entry: dict[str, Any]) -> None:
    """Enter a data set, with its rows, the text of its file, or (None) without a file."""
    info = json.loads((folder / "dataset_info.json").read_text())
    info[name] = {"file_name": f"{len(info)}.json", **entry}
    (folder / "dataset_info.json").write_text(json.dumps(info))
    if content is not None:
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / info[name]["file_name"]).write_text(text, encoding="utf-8")


@contextmanager
def reached(monkeypatch):
    """How far a run comes: what it reads and loads is noted as it begins."""
    from llamafactory_dids.integration.domains import proxy
    from llamafactory_dids.training.trainer import MixingTrainerMixin

    stages = ["keys"]

    def noting(owner, attribute, stage):
        original = getattr(owner, attribute)

        def noted(*args, **kwargs):
            stages.append(stage)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, attribute, noted)

    tuner()
    from importlib import import_module

    from llamafactory.data import loader

    noting(loader, "_get_merged_dataset", "data")
    for stage in STAGES:
        noting(import_module(f"llamafactory.train.{stage}.workflow"), "load_model", "model")
    noting(proxy, "load_model", "model")
    noting(MixingTrainerMixin, "train", "training")
    yield stages


@contextmanager
def patience():
    """A case that hangs fails."""

    def too_long(*_):
        raise TimeoutError("the case hangs")

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(int(LONGEST * PATIENCE))
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, previous)


def files_below(folder: Path) -> dict[Path, int]:
    """The files of a run's output and cache, with when they were written."""
    found = [*folder.glob("out/**/*"), *folder.glob("cache/**/*")]
    return {path: path.stat().st_mtime_ns for path in found if path.is_file()}


def assert_whole(path: Path) -> None:
    """A file that a rerun would trust can be read to its end."""
    assert not path.name.endswith(".part"), path
    if path.name == "mixture.jsonl":
        for line in MixtureLog(path).read():
            p_D = np.array(list(line["probabilities"].values()))
            assert np.isfinite(p_D).all() and (p_D >= 0).all() and abs(p_D.sum() - 1) < 1e-9, line
    elif path.suffix == ".json":
        json.loads(path.read_text())
    elif path.suffix == ".parquet":
        pq.read_table(path)
    elif path.suffix == ".npy":
        np.load(path)
    elif path.suffix == ".safetensors":
        load_file(path)
