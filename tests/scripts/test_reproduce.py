"""Tables from result files: what is done, means and errors over seeds, pairs by seed, beside the paper's values."""

import json
import statistics

import pytest

from scripts.experiments import definition, figures, reproduce, results, runner, tables
from scripts.experiments.definition import AVERAGE, TASKS
from scripts.experiments.results import Table

ALL = definition.load_all()
LOSSES = {"proportional": [3.0, 4.0, 5.0], "dids": [2.5, 3.6, 4.7], "dids_swapped": [2.9, 3.9]}


def leave(run, values, tasks=TASKS, **more):
    """A result file of a run: a line a seed, the same loss for each task."""
    lines = [
        {"run": run, "seed": seed, "losses": dict.fromkeys(tasks, value), "unseen": {"mbpp": value}, **more}
        for seed, value in enumerate(values, 1)
    ]
    path = results.path_of("mini", run)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    for run, values in LOSSES.items():
        leave(run, values)
    return tmp_path


def table(name, seeds=3, preset="mini"):
    return Table(ALL[name], preset, range(1, seeds + 1), None)


def row_of(one, label):
    return next(row for row in one.definition.rows if row.label == label)


def test_what_is_done_is_counted_by_seed(folder):
    swapped = table("table_11")
    assert swapped.done() == 8 and len(swapped.wanted) == 3
    assert swapped.left("dids_swapped", "llama_tulu") == [3] and swapped.left("dids", "llama_tulu") == []
    assert table("table_11", seeds=1).done() == 3, "seeds that were not asked for do not count"


def test_the_difference_is_paired_by_seed(folder):
    swapped = table("table_11")
    found = swapped.difference(row_of(swapped, "DIDS (Original)"), AVERAGE)
    assert found == pytest.approx([-0.5, -0.4, -0.3])
    assert len(swapped.difference(row_of(swapped, "DIDS (Unreasonable)"), "bbh")) == 2
    assert swapped.difference(row_of(swapped, "Random"), "bbh") == []


def test_a_single_task_column_is_of_the_run_that_observed_that_task(folder):
    leave("dids_only_gsm8k", [1.0])
    one = table("table_01")
    row = next(r for r in one.definition.rows if r.run == "dids_only_{column}")
    assert one.values(row, "gsm8k") == {1: 1.0} and one.values(row, "bbh") == {}
    assert one.values(row, AVERAGE) == {}, "eight of nine tasks are not there"


def test_an_average_needs_every_task_that_the_preset_scores(folder):
    leave("dga", [1.0], tasks=TASKS[:8])
    one = table("table_01")
    assert one.values(row_of(one, "+ DGA (100k)"), AVERAGE) == {}
    unseen = table("table_13")
    leave("dids", [2.0], tasks=(*TASKS, "arc_challenge"))
    unseen = table("table_13")
    assert unseen.values(row_of(unseen, "DIDS (100k)"), AVERAGE) == {1: 2.0}, "WMT16 and TLDR are not of this preset"


def test_a_score_line_of_the_paper_preset_is_done_when_it_has_the_tables_tasks(tmp_path):
    path = results.path_of("paper", "dids", "llama_tulu")
    results.add(path, {"run": "dids", "seed": 1, "scores": {"mbpp": 61.0}})
    unseen = table("table_13", 1, "paper")
    assert unseen.left("dids", "llama_tulu") == [1]
    results.add(path, {"run": "dids", "seed": 1, "scores": {"wmt16": 17.0, "arc_challenge": 85.0}})
    unseen = table("table_13", 1, "paper")
    assert unseen.left("dids", "llama_tulu") == [] and len(path.read_text().splitlines()) == 1
    assert unseen.values(row_of(unseen, "DIDS (100k)"), AVERAGE) == {1: pytest.approx(statistics.fmean((61, 17, 85)))}


def test_the_page_has_the_papers_values_ours_and_the_footnote(folder):
    text = tables.page(table("table_11"))
    assert text.startswith("# Table 11: Half of each domain swapped")
    assert "8 of 9 runs are there" in text and "--table 11 --preset mini --seeds 3 --render" in text
    assert "| Random | paper | 67.4 | 85.6 | 58.9 | 11.4 |" in text and "not comparable" in text
    assert "|  | here, n = 3 | 3.600 ± 2.733 |" in text and "|  | less Random | −0.400 ± 0.248 |" in text
    assert "prints an average of 58.9; that of its values is 58.49." in text


def test_a_table_that_the_mini_preset_has_not_says_why(folder):
    text = tables.page(table("table_05"))
    assert "Not part of the mini preset, which has one model" in text and "| Mixtral-7B | paper | 56.0 |" in text
    assert table("table_05").wanted == []


def test_a_column_that_needs_a_judge_is_not_scored(tmp_path):
    one = table("table_10", 1, "paper")
    assert one.needed("dids", "llama_tulu") == ["gsm8k", "humaneval"]
    assert "MT-Bench: not scored" in tables.page(one)


def test_the_costs_have_measured_shares_beside_predicted_ones(folder):
    leave("dids", [2.0, 2.0], cost={"seconds": 60.0, "update_seconds": 10.0, "clustering_seconds": 25.0})
    text = tables.page(table("table_03"))
    line = next(line for line in text.splitlines() if line.startswith("| Impact") and "| dids |" in line)
    assert line.split("|")[3].strip() == "178" and line.rstrip(" |").endswith("20.0% ± 0.0%")


def test_a_figure_is_drawn(folder):
    leave("dids_updates_5", [2.0, 3.0])
    picture = figures.draw_table(table("figure_2a"))
    assert picture.startswith(b"\x89PNG") and len(picture) > 10_000


def test_weights_are_those_that_held_at_each_tenth(tmp_path):
    log = tmp_path / "dids" / "mixture.jsonl"
    log.parent.mkdir()
    lines = [(0, 0.5), (500, 0.8), (1000, 0.2)]
    log.write_text(
        "".join(
            json.dumps({"samples_seen": n, "probabilities": {"a": p, "b": 1 - p}, "task_loss": {}}) + "\n"
            for n, p in lines
        )
    )
    found = tables.condense(tmp_path)
    assert found["a"] == [50.0] * 5 + [80.0] * 5 + [20.0] and tables.chosen({"dids": found}) == ["a", "b"]
    ours = table("table_09")
    ours.folders = {"dids": tmp_path, "dga": tmp_path / "none"}
    assert f"| a | dids, here | {' | '.join(['50'] * 5 + ['80'] * 5 + ['20'])} |" in tables.page(ours)


# --- the command ------------------------------------------------------------------------------------------------

RUNS = {name: {"mix_strategy": "dids"} for name in (*LOSSES, "dids_updates_5")}


@pytest.fixture
def command(folder, monkeypatch):
    """The command, with result files and named runs of its own."""

    def call(*words):
        monkeypatch.setattr("sys.argv", ["reproduce.py", *words])
        reproduce.main()

    monkeypatch.setattr(reproduce.runs, "load", lambda: RUNS)
    monkeypatch.setattr(reproduce, "TABLES", folder / "tables")
    monkeypatch.setattr(reproduce, "ROOT", folder)
    return call


def test_the_list_has_each_table_with_its_state(command, capsys):
    command("--list", "--seeds", "3")
    lines = capsys.readouterr().out.splitlines()
    (place,) = [place for place, line in enumerate(lines) if line.startswith("Table 11 ")]
    assert "Half of each domain swapped" in lines[place]
    assert lines[place + 1].split() == ["mini", "8", "of", "9", "paper", "0", "of", "9"]
    assert len(lines) == 2 * len([one for one in ALL.values() if one.kind != "data"])


def test_the_list_leaves_out_a_preset_that_has_no_run_of_a_table(command, folder, capsys):
    command("--list", "--seeds", "3")
    assert "mini_3m_continued" not in capsys.readouterr().out
    path = results.path_of("mini_3m_continued", "dids")
    results.add(path, {"run": "dids", "seed": 1, "losses": dict.fromkeys(TASKS, 1.0)})
    command("--list", "--seeds", "3")
    assert "mini_3m_continued   1 of   9" in capsys.readouterr().out


def test_each_mini_preset_has_the_name_of_its_results():
    for preset, how in definition.MINI.items():
        given = {"size": "cpu", "continued": False, "fp32": False} | how
        assert runner.name_of(**given) == preset


def test_rendering_writes_the_files_and_runs_nothing(command, folder, capsys):
    command("--table", "11", "--render", "--seeds", "3")
    command("--figure", "2a", "--render", "--seeds", "3")
    written = sorted(path.name for path in (folder / "tables" / "mini").iterdir())
    assert written == ["figure_2a.md", "figure_2a.png", "table_11.md"]


def test_a_dry_run_of_the_mini_preset_says_which_seeds_are_left(command, capsys):
    with pytest.raises(SystemExit) as end:
        command("--table", "11", "--dry-run", "--seeds", "3")
    assert end.value.code == 0
    assert "Table 11: dids_swapped: seeds to run: 3" in capsys.readouterr().out


def test_an_unknown_table_is_one_line(command):
    with pytest.raises(SystemExit, match="^error: --table: got '99', allowed: 1, 2, 3"):
        command("--table", "99")


def test_the_paper_preset_does_not_start_where_something_is_missing(command):
    with pytest.raises(
        SystemExit, match="error: --preset: got 'paper', for which this machine lacks .*; allowed: mini"
    ):
        command("--table", "11", "--preset", "paper")


def test_only_runs_of_the_preset_are_made_each_once(command, monkeypatch, folder):
    asked = []
    monkeypatch.setattr(runner, "execute", lambda *given, **how: asked.append((*given, how)))
    names = ["proportional", "dids", "dids_swapped"]
    command("--table", "11", "--seeds", "3", "--jobs", "1")
    command("--table", "11", "--seeds", "1", "--jobs", "1", "--preset", "mini_continued")
    assert asked == [(names, range(1, 4), 1, {}), (names, range(1, 2), 1, {"continued": True})]


def test_a_line_is_put_in_the_place_of_the_older_one(tmp_path):
    path = tmp_path / "dids.jsonl"
    for score in (1.0, 2.0):
        results.add(path, {"run": "dids", "seed": 2, "scores": {"bbh": score}})
    results.add(path, {"run": "dids", "seed": 1, "scores": {"bbh": 3.0}})
    assert [json.loads(line)["scores"]["bbh"] for line in path.read_text().splitlines()] == [3.0, 2.0]
