"""The `llamafactory-dids` command, and what `llamafactory-cli` shows of the plugin."""

import json
import re
import subprocess
import sys
from importlib.metadata import version

import numpy as np
import pytest

from llamafactory_dids.artifacts.domain_map import DomainMap, save_map
from llamafactory_dids.config import FIELDS
from llamafactory_dids.integration.commands import cli
from tests.integration.support import (
    SOURCES,
    arguments,
    environment,
    finish_well,
    our_log,
    start,
    train,
    tuner,
    write_yaml,
)

pytestmark = pytest.mark.integration


def command(capsys, *words):
    """What a command of ours prints, in this process."""
    capsys.readouterr()
    cli.main([str(word) for word in words])
    return capsys.readouterr().out


def test_inspect_lists_each_domain_with_its_size_share_sources_and_a_text_the_largest_share_first(finished, capsys):
    lines = command(capsys, "inspect", finished.dids).splitlines()
    assert lines[0].endswith("6 domains, 270 samples")
    assert lines[1].split() == ["domain", "samples", "of", "data", "share", "datasets,", "and", "a", "sample"]
    last = finished.probabilities[-1]
    assert [line.split()[0] for line in lines[2::2]] == sorted(last, key=last.get, reverse=True)
    for line in lines[2::2]:
        name, size, of_data, share, source, count = line.split()
        assert (source, count) == (name.split("/")[0], size)
        assert of_data == f"{int(size) / 270:.2%}" and share == f"{last[name]:.2%}"
    assert all("Case " in line for line in lines[3::2])


def test_inspect_fits_80_columns_and_lists_as_many_as_are_asked_for(finished, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    lines = command(capsys, "inspect", finished.dids, "--limit", "2").splitlines()
    assert max(map(len, lines[1:])) <= 80
    assert len(lines) == 2 + 2 * 2 + 1 and lines[-1] == "… and 4 more"
    with pytest.raises(SystemExit, match="error: --limit: got 0, allowed: an integer >= 1"):
        cli.main(["inspect", str(finished.dids), "--limit", "0"])


def test_without_a_command_help_is_printed_and_the_version_when_it_is_asked_for(capsys):
    cli.main([])
    text = capsys.readouterr().out
    assert "examples:" in text and all(f"    {name} " in text for name in ("train", "explain", "inspect", "doctor"))
    with pytest.raises(SystemExit) as ended:
        cli.main(["--version"])
    assert ended.value.code == 0 and capsys.readouterr().out.split()[1] == version("llamafactory-dids")


@pytest.mark.parametrize("name", ["train", "cluster", "explain", "inspect", "report", "doctor"])
def test_help_says_what_it_means_without_words_of_our_own(name, capsys):
    with pytest.raises(SystemExit):
        cli.main([name, "--help"])
    text = capsys.readouterr().out
    assert not re.search(r"\bseam|\bhost\b|\bours\b|for a program", text)
    assert ("KEY=VALUE" in text) == (name in ("train", "cluster", "explain"))


def test_inspect_tells_a_program_the_same(finished, capsys):
    found = json.loads(command(capsys, "inspect", "--json", finished.dids))
    assert found["path"] == str(finished.dids)
    assert [domain["name"] for domain in found["domains"]] == list(finished.probabilities[0])
    assert sum(domain["size"] for domain in found["domains"]) == sum(SOURCES.values())
    for domain in found["domains"]:
        assert domain["sources"] == {domain["name"].split("/")[0]: domain["size"]}
        assert domain["probability"] == finished.probabilities[-1][domain["name"]]
        assert len(domain["typical_texts"]) == 3


def test_inspect_takes_the_path_of_either_file_of_a_map(finished, capsys):
    texts = [command(capsys, "inspect", "--json", finished.dids / name) for name in ("domains.json", "domains.parquet")]
    assert json.loads(texts[0])["domains"] == json.loads(texts[1])["domains"]


@pytest.fixture(scope="module")
def clustered(world, tmp_path_factory):
    """A YAML's values, and what `cluster --json` printed in a process of its own."""
    folder = tmp_path_factory.mktemp("clustered")
    values = arguments(world, folder)
    path = str(write_yaml(folder / "run.yaml", values))
    return values, finish_well(start(["llamafactory-dids", "cluster", path, "--json"]))


@pytest.fixture
def no_training_gradients(monkeypatch):
    """Gradients of the tasks' 24 observed samples may be made, of the training samples none."""
    tuner()
    from llamafactory_dids.integration.domains import features

    fill_store = features.fill_store

    def fill(store, *more):
        assert store.num_rows == 24, "the training samples' gradients are there"
        fill_store(store, *more)

    monkeypatch.setattr(features, "fill_store", fill)


def test_cluster_prints_the_map_that_train_then_uses_without_their_gradients(
    clustered, finished, no_training_gradients
):
    values, output = clustered
    printed = json.loads(output)  # nothing else is printed
    with our_log() as messages:
        ran = train(values)
    assert any(message == f"domains: using {printed['path']} (6 domains)" for message in messages)
    assert [domain["name"] for domain in printed["domains"]] == list(ran.probabilities[0])
    assert ran.probabilities == finished.probabilities


def test_other_clustering_keys_make_a_new_map_from_the_same_gradients(clustered, no_training_gradients, tmp_path):
    values, _ = clustered
    changes = {"dids_num_domains": 4, "dids_cluster_scope": "global", "output_dir": str(tmp_path), "max_steps": 4}
    ran = train(values | changes)
    assert list(ran.probabilities[0]) == ["global/0", "global/1", "global/2", "global/3"]


def test_doctor_finds_nothing_wrong_here(capsys):
    tuner()
    findings = {finding["what"]: finding for finding in json.loads(command(capsys, "doctor", "--json"))}
    assert [what for what, finding in findings.items() if not finding["ok"]] == []
    assert {"python", "versions", "llamafactory seams", "activation", "faiss", "GPU"} <= findings.keys()
    assert f"llamafactory {version('llamafactory')}" in findings["versions"]["found"]


def test_doctor_says_what_to_do_and_fails_when_switched_off(monkeypatch, capsys):
    monkeypatch.setenv("LLAMAFACTORY_DIDS", "0")
    with pytest.raises(SystemExit) as caught:
        cli.main(["doctor"])
    assert caught.value.code == 1
    text = capsys.readouterr().out
    assert "FAIL  activation: LLAMAFACTORY_DIDS=0" in text and "→ unset LLAMAFACTORY_DIDS" in text


def test_help_of_the_hosts_command_lists_each_key_with_its_text(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit):
        tuner().run_exp(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    assert [name for name in FIELDS if f"--{name}" not in text] == []
    assert [name for name, item in FIELDS.items() if " ".join(item.metadata["help"].split()) not in text] == []
    assert "By llamafactory-dids: dids, dga" in text


def test_inspect_takes_a_runs_output_folder_and_a_map_without_a_run(finished, capsys, tmp_path):
    assert command(capsys, "inspect", finished.folder) == command(capsys, "inspect", finished.dids)
    for name in ("domains.json", "domains.parquet"):
        (tmp_path / name).write_bytes((finished.dids / name).read_bytes())
    found = json.loads(command(capsys, "inspect", "--json", tmp_path))
    assert not any("probability" in domain for domain in found["domains"])


@pytest.mark.parametrize("names", [("web", "code"), ()])
def test_inspect_has_its_figures_below_their_titles_though_names_are_short(names, capsys, tmp_path):
    save_map(DomainMap(names, ["k"] * len(names), names, np.arange(len(names))), tmp_path)
    _, titles, *lines = command(capsys, "inspect", tmp_path).splitlines()
    ends = {titles.index(title) + len(title) for title in ("samples", "of data")}
    assert len(lines) == len(names) and all(ends <= {found.end() for found in re.finditer(r"\S+", x)} for x in lines)


def test_inspect_refuses_a_log_that_has_no_mixture_in_one_line(finished, tmp_path):
    for name in ("domains.json", "domains.parquet"):
        (tmp_path / name).write_bytes((finished.dids / name).read_bytes())
    (tmp_path / "mixture.jsonl").write_text("{}\n")
    with pytest.raises(SystemExit, match=r"^error: .*mixture.jsonl: not a mixture log: a line lacks"):
        cli.main(["inspect", str(tmp_path)])


def test_a_file_that_is_no_map_is_refused_by_inspect(tmp_path):
    (tmp_path / "config.yaml").touch()
    with pytest.raises(SystemExit, match=r"^error: MAP: got '.*config.yaml', allowed: the folder of a run or of a"):
        cli.main(["inspect", str(tmp_path / "config.yaml")])


def test_a_reader_that_has_seen_enough_is_no_error(finished):
    words = [sys.executable, "-m", "llamafactory_dids", "inspect", str(finished.dids)]
    with subprocess.Popen(words, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        process.stdout.close()  # as `| head` does
        assert process.stderr.read() == b""
    assert process.returncode == 0


def test_report_writes_the_runs_report_again_and_prints_its_path(finished, capsys, tmp_path):
    output = tmp_path / "again.html"
    assert command(capsys, "report", finished.folder, "--output", output).strip() == str(output)
    text = output.read_text()
    assert text.count("data:image/png;base64,") == 5 and "6 domains" in text


def test_report_compares_runs_and_tells_a_program_the_same(finished, capsys, tmp_path):
    output = tmp_path / "both.html"
    found = json.loads(command(capsys, "report", "--json", finished.folder, finished.dids, "--output", output))
    assert found["path"] == str(output) and output.exists()
    assert [run["losses"] for run in found["runs"]] == [finished.lines[-1]["task_loss"]] * 2
    last = {row["domain"]: row["end"] for row in found["shares"]}
    assert last == pytest.approx(finished.probabilities[-1])
    lines = command(capsys, "report", finished.folder, finished.dids, "--output", output).splitlines()
    assert lines == [str(output), *found["verdict"]] and found["verdict"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{tmp}"], "{tmp}: no mixture log; allowed: a run's mixture.jsonl, or the folder of a run"),
        (["{run}", "--lang", "fr"], "--lang: got 'fr', allowed: en, zh"),
        (["{run}", "--output", "{tmp}"], "{tmp}: cannot be written .*; allowed: a folder that can be written to"),
    ],
)
def test_report_refuses_in_one_line(finished, tmp_path, words, message):
    places = {"tmp": str(tmp_path), "run": str(finished.folder)}
    with pytest.raises(SystemExit, match="error: " + message.format(**places)) as caught:
        cli.main(["report", *(word.format(**places) for word in words)])
    assert "\n" not in str(caught.value)
