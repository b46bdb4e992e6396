"""The results that the documents show are those of the committed result files."""

import re

import pytest

from scripts.experiments import definition, pages, reproduce, tables

ALL = definition.load_all()
WRITTEN = sorted(reproduce.TABLES.glob("*/*.md"))


@pytest.mark.parametrize("path", pages.PAGES, ids=lambda path: path.name)
def test_the_tables_of_a_page_are_those_of_the_result_files(path):
    page = path.read_text(encoding="utf-8")
    assert pages.MARKER.search(page)
    assert pages.rebuilt(page) == page, "python scripts/experiments/pages.py makes them anew"


@pytest.mark.parametrize("path", WRITTEN, ids=[f"{path.parent.name}-{path.stem}" for path in WRITTEN])
def test_a_table_of_the_paper_is_what_its_own_command_makes(path):
    text = path.read_text(encoding="utf-8")
    command = re.search(r"--(?:table|figure) (\S+) --preset (\S+) --seeds (\d+) --render", text)
    assert command is not None and command[2] == path.parent.name
    table = reproduce.table_of(ALL[path.stem], command[2], range(1, int(command[3]) + 1))
    assert tables.page(table) == text, command[0]
