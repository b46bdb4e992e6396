"""The results that the documents show are those of the committed result files."""

import re

import pytest

from scripts.paper import definition, mini_tables, rendering, reproduce

ALL = definition.load_all()
WRITTEN = sorted(reproduce.TABLES.glob("*/*.md"))


@pytest.mark.parametrize("path", mini_tables.PAGES, ids=lambda path: path.name)
def test_the_tables_of_a_page_are_those_of_the_result_files(path):
    page = path.read_text(encoding="utf-8")
    assert mini_tables.MARKER.search(page)
    assert mini_tables.rebuilt(page) == page, "python scripts/paper/mini_tables.py makes them anew"


@pytest.mark.parametrize("path", WRITTEN, ids=[f"{path.parent.name}-{path.stem}" for path in WRITTEN])
def test_a_table_of_the_paper_is_what_its_own_command_makes(path):
    text = path.read_text(encoding="utf-8")
    command = re.search(r"--(?:table|figure) (\S+) --preset (\S+) --seeds (\d+) --render", text)
    assert command is not None and command[2] == path.parent.name
    table = reproduce.table_of(ALL[path.stem], command[2], range(1, int(command[3]) + 1))
    page = rendering.page(table)
    assert page.markdown == text and page.csv() == path.with_suffix(".csv").read_text(encoding="utf-8"), command[0]
