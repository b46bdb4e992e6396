"""The paper's values as they were typed in, and the names of runs."""

import statistics

import pytest

from llamafactory_dids.errors import DidsError
from scripts.experiments import definition, runs
from scripts.experiments.definition import TASKS

ALL = definition.load_all()
WITH_AVERAGES = [one for one in ALL.values() if one.average]


def values(table, label, section=""):
    return next(r.paper for r in ALL[table].rows if r.label == label and section in r.section)


def test_there_is_a_file_for_each_table_and_figure_of_the_paper():
    numbers = ("01", "02", "03", "05", "06", "07", "08", "09", "10", "11", "12", "13", "14")
    assert {f"table_{n}" for n in numbers} | {"figure_2a", "figure_2b", "figure_3a", "figure_3b"} <= set(ALL)


@pytest.mark.parametrize("one", WITH_AVERAGES, ids=lambda one: one.name)
def test_a_printed_average_is_that_of_its_row_but_for_random_of_table_1_and_its_copy(one):
    """A slip in typing a value would move the average of its row: 0.1 of rounding is 0.9 in one of nine values."""
    off = [r.label for r in one.rows if r.paper and abs(statistics.fmean(r.paper[:-1]) - r.paper[-1]) > 0.1 + 1e-9]
    assert off == {"table_01": ["+ Random (100k)"], "table_11": ["Random"]}.get(one.name, [])


def test_values_that_the_paper_prints_twice_are_the_same():
    assert values("table_01", "Llama-3.1-8B") == values("table_06", "Llama-3.1-8B")
    assert values("table_05", "Mixtral-7B") == values("table_07", "Mixtral-7B")
    assert values("table_11", "Random") == values("table_01", "+ Random (100k)")
    assert values("table_11", "DIDS (Original)") == values("table_01", "+ DIDS (100k)", "Single")
    assert values("table_08", "DIDS (100k)") == values("table_01", "+ DIDS (100k)", "Multi")
    places = [TASKS.index(task) for task in ALL["table_02"].columns]
    for label in ("DIDS (100k)", "DIDS-GC", "DIDS-FIM", "DIDS-LT"):
        assert values("table_02", label)[:-1] == tuple(values("table_08", label)[place] for place in places)
    assert [row.paper[0] for row in ALL["table_12"].rows[:3]] == [5.47e4, *ALL["table_03"].rows[-1].paper[:2]]


def test_the_figures_have_the_numbers_of_the_text():
    curve = {r.x: r.paper[0] for r in ALL["figure_2a"].rows if r.section == "DIDS"}
    assert curve == {5: 58.2, 25: 60.1, 45: 61.8, 65: 62.3, 85: 62.4, 95: 62.3}
    assert [r.paper[0] for r in ALL["figure_3a"].rows] == [62.3, 62.4, 62.5]


def test_every_run_of_a_table_can_be_made():
    known = runs.load()
    apart = (runs.UNTRAINED, runs.FULL)
    names = {run for one in ALL.values() for run, _ in one.wanted() if run not in apart and not run.startswith("mix_")}
    assert [name for name in sorted(names) if not runs.resolve(name, known)] == []


# --- reading ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title: t\ncolumns: [a]\nrows: []\ncolour: red\n", "got 'colour', allowed: average"),
        ("title: t\ncolumns: [a]\nkind: score\nrows: []\n", "kind: got 'score', allowed: scores, figure"),
        ("title: t\ncolumns: [a]\nrows: [{label: x, paper: [1, 2]}]\n", "x: got 2 values of the paper, allowed: 1"),
        ("title: t\ncolumns: [a]\nrows: [{label: x, base: gpt}]\n", "base: got 'gpt', allowed: llama_tulu"),
    ],
)
def test_a_wrong_definition_names_its_file_and_what_is_allowed(tmp_path, text, said):
    path = tmp_path / "table_99.yaml"
    path.write_text(text)
    with pytest.raises(DidsError, match="table_99.yaml") as error:
        definition.load(path)
    assert said in str(error.value) and "\n" not in str(error.value)


def test_a_number_may_name_two_tables():
    assert [one.heading for one in definition.find("table", "2/8")] == ["Table 2", "Table 8"]
    assert [one.heading for one in definition.find("figure", "2A")] == ["Figure 2a"]
    with pytest.raises(DidsError, match="--table: got '4', allowed: 1, 2, 3, 5"):
        definition.find("table", "4")


# --- names of runs ----------------------------------------------------------------------------------------------

KNOWN = {"dids": {"mix_strategy": "dids"}, "dids_updates_5": {"mix_strategy": "dids", "updates": 5, "dids_eta": 2.0}}


@pytest.mark.parametrize(
    ("name", "more"),
    [
        ("dids_only_minerva_math", {"tasks": ["minerva_math"]}),
        ("dids_updates_65", {"updates": 65}),
        ("dids_mix_in_25", {"mix_in": 0.25}),
        ("dids_domains_1152", {"dids_num_domains": 1152}),
        ("dids_proxy_1b", {"dids_proxy_model": "meta-llama/Llama-3.2-1B"}),
        ("dids_budget_50", {"budget": 0.5}),
    ],
)
def test_an_ending_says_what_a_run_is(name, more):
    assert runs.resolve(name, KNOWN) == {"mix_strategy": "dids"} | more


def test_a_run_of_the_file_is_taken_as_it_stands_there():
    assert runs.resolve("dids_updates_5", KNOWN) == KNOWN["dids_updates_5"]


@pytest.mark.parametrize("name", ["lost", "lost_only_gsm8k", "dids_only_poetry", "dids_updates_many"])
def test_another_name_is_refused(name):
    with pytest.raises(DidsError, match="run: got '.*', allowed: dids, dids_updates_5, and these with an ending"):
        runs.resolve(name, KNOWN)


def test_a_fixed_mixture_divides_the_weight_of_a_part():
    parts, sizes = {"a": "general", "b": "special", "c": "special"}, {"a": 80, "b": 10, "c": 30}
    found = runs.fixed_mixture("mix_general_4", parts, sizes)
    weights = [float(text) for text in found["dids_probs"].split(",")]
    assert weights == pytest.approx([20 / 60, 10 / 60, 30 / 60], abs=1e-6) and found["dids_domains"] == "source"
    assert runs.fixed_mixture("mix_special_1", parts, sizes)["dids_probs"].startswith("0.66666667,")
    assert runs.fixed_mixture("dids", parts, sizes) is None
