"""The table of ways to train is what its script makes of the committed results, and has no blank cell."""

import json

import pytest

from scripts import ways

REPORT = """<testsuites><testsuite>
<testcase name="passed"><properties><property name="way" value="{value}"/></properties></testcase>
<testcase name="failed"><properties><property name="way" value="{value}"/></properties><failure/></testcase>
<testcase name="skipped"><skipped/></testcase>
</testsuite></testsuites>"""


def outcomes(**changes):
    return dict.fromkeys(ways.CELLS, "tested on CPU") | changes


def test_the_committed_tables_are_those_of_the_committed_results():
    page = ways.PAGE.read_text(encoding="utf-8")
    assert page.count("<!-- end -->") == 2 and ways.rebuilt(page, ways.read()) == page


def test_every_cell_of_the_committed_results_was_tested_or_refused():
    found = ways.read()
    assert list(found) == list(ways.CELLS)
    allowed = ("tested on CPU", "tested on GPU")
    assert [cell for cell, text in found.items() if text not in allowed and not text.startswith("refused with: ")] == []
    assert all(len(text.splitlines()) == 1 and "|" not in text for text in found.values())


def test_a_cell_without_an_outcome_is_no_table():
    found = outcomes()
    del found["kto", "lora", "FSDP2"]
    with pytest.raises(ValueError, match="1 cells have no outcome, the first: kto / lora / FSDP2"):
        ways.cells(found)


def test_finetuning_types_share_a_row_where_their_cells_are_the_same():
    found = outcomes() | {("rm", "dora", "Ray"): "refused with: no"}
    rows = [row for row in ways.cells(found) if row[0] == "`rm`"]
    assert [row[1] for row in rows] == ["`full`, `freeze`, `lora`", "`dora`", "`rslora`, `pissa`, `qlora`"]
    assert [row.count("refused with: no") for row in rows] == [0, 1, 0]


def test_only_a_test_that_passed_gives_an_outcome(tmp_path):
    value = json.dumps(["sft", "full", "DDP", "tested on CPU"]).replace('"', "&quot;")
    text = REPORT.format(value=value)
    (tmp_path / "report.xml").write_text(text)
    assert ways.outcomes_of(tmp_path / "report.xml") == {("sft", "full", "DDP"): "tested on CPU"}
    (tmp_path / "report.xml").write_text(text.replace('name="passed">', 'name="passed"><error/>'))
    assert ways.outcomes_of(tmp_path / "report.xml") == {}


def test_outcomes_stay_until_their_cells_are_run_anew(tmp_path):
    path = tmp_path / "ways.json"
    ways.write({("pt", "full", "DDP"): "tested on CPU", ("sft", "full", "Ray"): "old"}, path)
    ways.write(ways.read(path) | {("sft", "full", "Ray"): "tested on CPU"}, path)
    assert ways.read(path) == {("sft", "full", "Ray"): "tested on CPU", ("pt", "full", "DDP"): "tested on CPU"}
