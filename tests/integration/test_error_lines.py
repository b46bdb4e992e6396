"""The real commands end with one line that says what is wrong, and no traceback unless it is asked for."""

import sys

import pytest

from llamafactory_dids.errors import DidsError
from llamafactory_dids.integration import errors
from llamafactory_dids.integration.commands import cli
from tests.integration.support import arguments, finish, start, write_yaml

pytestmark = pytest.mark.integration

MISSPELT = "error: dids_num_domain: unknown key, did you mean dids_num_domains?; `--help` lists the dids_ keys"


def test_misspelt_key_is_told_alike_by_every_command_in_one_line_and_no_traceback(world, tmp_path, monkeypatch):
    path = str(write_yaml(tmp_path / "run.yaml", arguments(world, tmp_path, dids_num_domain=3)))
    for process in [start([command, "train", path]) for command in ("llamafactory-cli", "llamafactory-dids")]:
        code, _, stderr = finish(process)
        lines = stderr.strip().splitlines()
        assert code == 1 and lines[-1] == MISSPELT
        assert sum(line.startswith("error: ") for line in lines) == 1 and "Traceback" not in stderr
    monkeypatch.setattr(sys, "argv", ["llamafactory-dids"])
    with pytest.raises(SystemExit) as ended:
        cli.main(["cluster", path])
    assert ended.value.code == MISSPELT


def test_yaml_file_that_is_not_there_is_told_in_one_line(tmp_path):
    with pytest.raises(SystemExit) as ended:
        cli.main(["train", str(tmp_path / "lost.yaml")])
    assert str(ended.value.code).startswith("error: ") and "\n" not in str(ended.value.code)


def test_an_error_of_a_ray_worker_is_told_as_it_was_raised_there(monkeypatch, capsys):
    class RayTaskError(DidsError):  # Ray makes such a class of the task's error and its own, whose text is a traceback
        cause = DidsError("dids_eta: got -1")

    monkeypatch.setattr(sys, "excepthook", lambda *error: None)
    monkeypatch.delenv("LLAMAFACTORY_DIDS_DEBUG", raising=False)
    errors.install_hook()
    sys.excepthook(RayTaskError, RayTaskError("Traceback\n  of a worker"), None)
    assert capsys.readouterr().err == "error: dids_eta: got -1\n"


@pytest.mark.parametrize("debug", [False, True])
def test_debugging_shows_the_traceback_of_a_host_command(debug, monkeypatch, capsys):
    shown = []
    monkeypatch.setattr(sys, "excepthook", lambda *error: shown.append(error))
    monkeypatch.setenv("LLAMAFACTORY_DIDS_DEBUG", str(int(debug)))
    errors.install_hook()
    error = DidsError("dids_eta: got\n-1")
    sys.excepthook(DidsError, error, None)
    sys.excepthook(KeyError, KeyError(), None)
    assert [kind for kind, _, _ in shown] == ([DidsError, KeyError] if debug else [KeyError])
    assert capsys.readouterr().err == ("" if debug else "error: dids_eta: got -1\n")


def test_debugging_lets_the_error_of_our_command_through(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="^error: .*no such file"):
        cli.main(["inspect", str(tmp_path)])
    monkeypatch.setenv("LLAMAFACTORY_DIDS_DEBUG", "1")
    with pytest.raises(DidsError, match="no such file"):
        cli.main(["inspect", str(tmp_path)])


def test_unknown_argument_is_refused(tmp_path):
    with pytest.raises(SystemExit, match="^error: unknown argument '--jsn'"):
        cli.main(["inspect", str(tmp_path), "--jsn"])
